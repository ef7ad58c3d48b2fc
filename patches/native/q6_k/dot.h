// Products of Q6_K rows with several tokens at once: each block is unpacked once for all of them.
//
// Activations are upstream's Q8_K (int8 in blocks of 256), so only the order of float additions differs from upstream.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgellm::q6_k {

constexpr int64_t BLOCK_WEIGHTS = 256;
constexpr int     MAX_TOKENS    = 8;  // of one call

// 256 activations of one token; aligned so that a vector never crosses a cache line.
struct alignas(64) activation_block {
    int8_t  q[BLOCK_WEIGHTS];
    int16_t sums[16];  // of 16 q each
    float   d;         // x = d q
};

// y[token][row] for rows `first` .. `last` - 1 of `n_blocks` blocks each, `y_stride` floats apart.
// `blocks` are block_q6_K of ggml-common.h; `tokens` are n_tokens times n_blocks blocks.
using multiply_rows = void (*)(const void * blocks, int64_t n_blocks, int64_t first, int64_t last,
                               const activation_block * tokens, int n_tokens, float * y, int64_t y_stride);

void multiply_avx512_vnni(const void * blocks, int64_t n_blocks, int64_t first, int64_t last,
                          const activation_block * tokens, int n_tokens, float * y, int64_t y_stride);

}  // namespace edgellm::q6_k
