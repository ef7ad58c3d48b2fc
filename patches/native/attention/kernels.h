// Attention over a cache of keys and values: the functions of one level, and which ones run here.
//
// A row is one head of one token. Its result depends on nothing but the row and the keys that it sees, in their order:
//
//     score_k  = (q_0 k_0 + q_1 k_1 + ...) * scale + slope * mask_k     fused, one dimension after the other
//     weight_k = exp(score_k - the largest score)
//     result   = (weight_0 v_0 + weight_1 v_1 + ...) / sum of weights   fused, one key after the other
//
// The sum of weights is one of integers. So neither company, nor threads, nor hidden keys between, nor the level change a
// bit of it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgellm::attention {

constexpr int TILE = 64;  // keys that are converted and multiplied at once

constexpr float ONE = 1 << 28;  // the weight 1 in sums of weights

// Halfs are float16 bits. Rows lie `stride` bytes apart, except those of a tile of keys, [dimension][TILE].
struct kernels {
    // n rows of n_dims halfs, or floats, to columns: out[dim*TILE + row]. n <= TILE, n_dims % 16 == 0; columns from n on
    // are not written.
    void (*transpose_halfs)(const char * rows, size_t stride, int n, int64_t n_dims, void * out);
    void (*transpose_floats)(const char * rows, size_t stride, int n, int64_t n_dims, void * out);

    // c[i] = a[i] b, or c[i] += a[i] b, for n rows: each a[i] has n_inner floats, each c[i] n_cols, and b has n_inner rows
    // of n_cols floats, or halfs. n_cols % 16 == 0.
    void (*multiply)(const float * const * a, float * const * c, int n, const char * b, size_t stride, int64_t n_inner,
                     int64_t n_cols, bool add);
    void (*multiply_halfs)(const float * const * a, float * const * c, int n, const char * b, size_t stride,
                           int64_t n_inner, int64_t n_cols, bool add);

    // TILE products to scores, in place; those whose mask is -infinity become -infinity. Returns the largest.
    float (*mask_scores)(float * scores, const uint16_t * mask, float scale, float slope);

    // TILE scores to weights, in place. Returns their sum, in units of 1/ONE; of NaN nothing is promised but NaN.
    int64_t (*weigh)(float * scores, float largest);
};

kernels scalar_kernels();

// The best kernels within these levels (cpu.h).
kernels best(unsigned levels);

// The kernels in use, of `stock` too, or null: upstream is faster than scalar kernels on a CPU without fused operations.
const kernels * chosen();

}  // namespace edgellm::attention
