// How tiles of keys and masks are brought into the form in which ggml's attention multiplies them, for prompts.
#pragma once

#include "ggml.h"
#include "ternary/dispatch.h"

#include <cmath>
#include <cstdint>

#if defined(__AVX512F__) && defined(__F16C__)
#    include <immintrin.h>
#endif

// ggml converts each half of a tile of keys and of the mask by itself, for every head and every 64 tokens of the prompt
// anew; with 512 tokens that is a quarter of the time of attention. Here whole vectors of them are converted, to the same
// floats. Where this machine has no AVX-512, or our kernels are switched off, the functions do nothing and say so.
namespace edgellm {

// `keys`, n rows of n_dims halfs that are `stride` bytes apart, n at most n_tile, transposed: out[dim * n_tile + row].
// Columns from n on are left as they are. False if nothing was done.
inline bool transpose_keys(const char * keys, size_t stride, int n, int64_t n_dims, int n_tile, float * out) {
#if defined(__AVX512F__) && defined(__F16C__)
    if (n % 16 != 0 || n_dims % 16 != 0 || !ternary::chosen()) {
        return false;
    }
    for (int row = 0; row < n; row += 16) {
        for (int64_t dim = 0; dim < n_dims; dim += 16) {
            __m512 x[16], y[16];
            for (int i = 0; i < 16; ++i) {
                const ggml_fp16_t * halfs = (const ggml_fp16_t *) (keys + (row + i) * stride) + dim;
                x[i] = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) halfs));
            }
            // Pairs of rows, then of pairs, within each quarter of a vector; then the quarters change places.
            for (int i = 0; i < 16; i += 2) {
                y[i]     = _mm512_unpacklo_ps(x[i], x[i + 1]);
                y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
            }
            for (int i = 0; i < 16; i += 4) {
                x[i]     = _mm512_shuffle_ps(y[i], y[i + 2], 0x44);
                x[i + 1] = _mm512_shuffle_ps(y[i], y[i + 2], 0xEE);
                x[i + 2] = _mm512_shuffle_ps(y[i + 1], y[i + 3], 0x44);
                x[i + 3] = _mm512_shuffle_ps(y[i + 1], y[i + 3], 0xEE);
            }
            for (int i = 0; i < 4; ++i) {
                y[i]      = _mm512_shuffle_f32x4(x[i], x[i + 4], 0x88);
                y[i + 4]  = _mm512_shuffle_f32x4(x[i], x[i + 4], 0xDD);
                y[i + 8]  = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0x88);
                y[i + 12] = _mm512_shuffle_f32x4(x[i + 8], x[i + 12], 0xDD);
            }
            for (int i = 0; i < 4; ++i) {
                x[i]      = _mm512_shuffle_f32x4(y[i], y[i + 8], 0x88);
                x[i + 8]  = _mm512_shuffle_f32x4(y[i], y[i + 8], 0xDD);
                x[i + 4]  = _mm512_shuffle_f32x4(y[i + 4], y[i + 12], 0x88);
                x[i + 12] = _mm512_shuffle_f32x4(y[i + 4], y[i + 12], 0xDD);
            }
            for (int i = 0; i < 16; ++i) {
                _mm512_storeu_ps(out + (dim + i) * n_tile + row, x[i]);
            }
        }
    }
    return true;
#else
    (void) keys, (void) stride, (void) n, (void) n_dims, (void) n_tile, (void) out;
    return false;
#endif
}

// A row of n halfs of a mask times `slope`, as floats. 1 if any of them lets something be seen, 0 if all are -infinity,
// -1 if nothing was done.
inline int convert_mask(const ggml_fp16_t * mask, int n, float slope, float * out) {
#if defined(__AVX512F__) && defined(__F16C__)
    if (n % 16 != 0 || !ternary::chosen()) {
        return -1;
    }
    const __m512 s    = _mm512_set1_ps(slope);
    const __m512 none = _mm512_set1_ps(-INFINITY);
    __mmask16    seen = 0;
    for (int i = 0; i < n; i += 16) {
        const __m512 x = _mm512_mul_ps(s, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) (mask + i))));
        seen |= _mm512_cmp_ps_mask(x, none, _CMP_NEQ_UQ);
        _mm512_storeu_ps(out + i, x);
    }
    return seen != 0;
#else
    (void) mask, (void) n, (void) slope, (void) out;
    return -1;
#endif
}

// The largest of n floats; false if nothing was done.
inline bool largest(const float * x, int n, float * out) {
#if defined(__AVX512F__) && defined(__F16C__)
    if (n % 16 != 0 || n == 0 || !ternary::chosen()) {
        return false;
    }
    __m512 most = _mm512_loadu_ps(x);
    for (int i = 16; i < n; i += 16) {
        most = _mm512_max_ps(most, _mm512_loadu_ps(x + i));
    }
    *out = _mm512_reduce_max_ps(most);
    return true;
#else
    (void) x, (void) n, (void) out;
    return false;
#endif
}

}  // namespace edgellm
