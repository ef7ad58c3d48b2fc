// Products of quantised rows with a few tokens at once: each block of weights is unpacked once for all of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace edgellm::few {

constexpr int MAX_TOKENS = 8;  // of one call

// y[token][row] for rows `first` .. `last` - 1 of n_cols weights each, the tokens' results `y_stride` floats apart.
// `weights` are whole rows as ggml-common.h has them, `tokens` the activations of n_tokens, one token after the other.
using multiply_rows = void (*)(const void * weights, int64_t n_cols, int64_t first, int64_t last, const void * tokens,
                               int n_tokens, float * y, int64_t y_stride);

// 256 activations of one token, for Q6_K: upstream's Q8_K, aligned so that a vector never crosses a cache line.
struct alignas(64) q8_k_block {
    int8_t  q[256];
    int16_t sums[16];  // of 16 q each
    float   d;         // x = d q
};

// The activations of one token, for the types with blocks of 32: upstream's Q8_0, two blocks side by side, four of the
// first, then four of the second, and so on. So the lanes of a sum belong to one and the other in turn, and the two
// scales reach them all as one broadcast of eight bytes.
struct q8_0_token {
    static constexpr int64_t MOST_BLOCKS = 1024;

    int8_t * q;    // [n]
    float  * d;    // [n/32]: x = d q
    float  * sum;  // [n/32, padded with zeros]: d times the sum of q

    // Blocks, rounded up to whole vectors of floats.
    static int64_t padded(int64_t n) { return (n/32 + 15)/16*16; }
    static int64_t bytes(int64_t n) { return n + 2*padded(n)*(int64_t) sizeof(float); }

    q8_0_token() = default;
    q8_0_token(void * data, int64_t n) : q((int8_t *) data), d((float *) (q + n)), sum(d + padded(n)) {}
};

// The products; null where upstream's is used. Integer sums are exact, and batching does not change the bits of a
// token. The order in which a level adds floats is its own.
struct kernels {
    multiply_rows q4_0, q4_1, q8_0, q6_k;
};

// The best kernels within these levels (cpu.h).
kernels best(unsigned levels);

// The kernels in use: none if EDGELLM_KERNELS is `stock`.
const kernels & chosen();

// Calls `f` with n as a constant, 1 <= n <= Most.
template <int Most, typename F>
inline void with_constant(int n, F && f) {
    if constexpr (Most > 1) {
        if (n < Most) {
            return with_constant<Most - 1>(n, f);
        }
    }
    f(std::integral_constant<int, Most>());
}

}  // namespace edgellm::few
