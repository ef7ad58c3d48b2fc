// AVX-512: sixteen floats are one vector.

#include "ladder.h"
#include "../rows.h"

#include <immintrin.h>

namespace edgellm::attention {

namespace {

struct avx512 {
    static constexpr int ROWS = 6, VECTORS = 4;
    using vector = __m512;
    using counts = __m512i;

    static vector load(const float * p) { return _mm512_loadu_ps(p); }
    static vector load_halfs(const uint16_t * p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p)); }
    static vector load_any(const float * p) { return load(p); }
    static vector load_any(const uint16_t * p) { return load_halfs(p); }
    static void store(float * p, vector v) { _mm512_storeu_ps(p, v); }
    static vector all(float x) { return _mm512_set1_ps(x); }
    static vector fma(vector a, vector b, vector c) { return _mm512_fmadd_ps(a, b, c); }
    static vector mul(vector a, vector b) { return _mm512_mul_ps(a, b); }
    static vector sub(vector a, vector b) { return _mm512_sub_ps(a, b); }
    static vector larger(vector a, vector b) { return _mm512_max_ps(a, b); }
    static float largest(vector v) { return _mm512_reduce_max_ps(v); }
    static vector hide(vector v, vector mask) {
        const vector none = all(-__builtin_inff());
        return _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(mask, none, _CMP_EQ_OQ), none);
    }
    static vector zero_below(vector v, vector x, float limit) {
        return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, all(limit), _CMP_NLT_UQ), v);
    }
    static vector times_power_of_two(vector v, vector bits) {
        const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(bits), 23);
        return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(v), n));
    }
    static counts no_counts() { return _mm512_setzero_si512(); }
    static counts count(vector v, counts c) { return _mm512_add_epi32(c, _mm512_cvtps_epi32(v)); }
    static int64_t sum(counts c) {
        const __m512i low  = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(c));
        const __m512i high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64(c, 1));
        return _mm512_reduce_add_epi64(_mm512_add_epi64(low, high));
    }

    static void transpose(const uint16_t * rows, size_t stride, uint16_t * out) {
        transpose_eight(rows, stride, out);
        transpose_eight(rows + 8, stride, out + 8*TILE);
    }
    // Eight columns. A quarter of a vector is a row at first: row 4 quarter + i of vector i.
    static void transpose_eight(const uint16_t * rows, size_t stride, uint16_t * out) {
        const auto row = [&](int i) { return _mm_loadu_si128((const __m128i *) ((const char *) rows + i*stride)); };
        __m512i x[4], y[4];
        for (int i = 0; i < 4; ++i) {
            x[i] = _mm512_castsi128_si512(row(i));
            x[i] = _mm512_inserti32x4(x[i], row(i + 4), 1);
            x[i] = _mm512_inserti32x4(x[i], row(i + 8), 2);
            x[i] = _mm512_inserti32x4(x[i], row(i + 12), 3);
        }
        y[0] = _mm512_unpacklo_epi16(x[0], x[1]);
        y[1] = _mm512_unpackhi_epi16(x[0], x[1]);
        y[2] = _mm512_unpacklo_epi16(x[2], x[3]);
        y[3] = _mm512_unpackhi_epi16(x[2], x[3]);
        for (int i = 0; i < 2; ++i) {
            x[2*i]     = _mm512_unpacklo_epi32(y[i], y[i + 2]);
            x[2*i + 1] = _mm512_unpackhi_epi32(y[i], y[i + 2]);
        }
        // now a quarter has two columns of its four rows
        const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
        for (int i = 0; i < 4; ++i) {
            const __m512i columns = _mm512_permutexvar_epi64(order, x[i]);
            _mm256_storeu_si256((__m256i *) (out + 2*i*TILE), _mm512_castsi512_si256(columns));
            _mm256_storeu_si256((__m256i *) (out + (2*i + 1)*TILE), _mm512_extracti64x4_epi64(columns, 1));
        }
    }
    static void transpose(const float * rows, size_t stride, float * out) {
        __m512 x[16], y[16];
        for (int i = 0; i < 16; ++i) {
            x[i] = load((const float *) ((const char *) rows + i*stride));
        }
        // 4 x 4 floats within each quarter of the vectors, then the quarters
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
            store(out + i*TILE, x[i]);
        }
    }
};

}  // namespace

kernels avx512_kernels() {
    return kernels_of<avx512>();
}

}  // namespace edgellm::attention
