// AVX2 with FMA and F16C: sixteen floats are two vectors.

#include "ladder.h"
#include "../rows.h"

#include <immintrin.h>

namespace edgellm::attention {

namespace {

struct avx2 {
    static constexpr int ROWS = 6, VECTORS = 1;
    struct vector { __m256 low, high; };
    struct counts { __m256i low, high; };

    static vector load(const float * p) { return { _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) }; }
    static __m256 eight_halfs(const uint16_t * p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p)); }
    static vector load_halfs(const uint16_t * p) { return { eight_halfs(p), eight_halfs(p + 8) }; }
    static vector load_any(const float * p) { return load(p); }
    static vector load_any(const uint16_t * p) { return load_halfs(p); }
    static void store(float * p, vector v) {
        _mm256_storeu_ps(p, v.low);
        _mm256_storeu_ps(p + 8, v.high);
    }
    static vector all(float x) { return { _mm256_set1_ps(x), _mm256_set1_ps(x) }; }
    static vector fma(vector a, vector b, vector c) {
        return { _mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high) };
    }
    static vector mul(vector a, vector b) { return { _mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high) }; }
    static vector sub(vector a, vector b) { return { _mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high) }; }
    static vector larger(vector a, vector b) { return { _mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high) }; }
    static float largest(vector v) {
        const __m256 eight = _mm256_max_ps(v.low, v.high);
        __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        four = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    }
    static vector hide(vector v, vector mask) {
        const __m256 none = _mm256_set1_ps(-__builtin_inff());
        return { _mm256_blendv_ps(v.low, none, _mm256_cmp_ps(mask.low, none, _CMP_EQ_OQ)),
                 _mm256_blendv_ps(v.high, none, _mm256_cmp_ps(mask.high, none, _CMP_EQ_OQ)) };
    }
    static vector zero_below(vector v, vector x, float limit) {
        const __m256 least = _mm256_set1_ps(limit);
        return { _mm256_and_ps(v.low, _mm256_cmp_ps(x.low, least, _CMP_NLT_UQ)),
                 _mm256_and_ps(v.high, _mm256_cmp_ps(x.high, least, _CMP_NLT_UQ)) };
    }
    static __m256 shifted(__m256 v, __m256 bits) {
        const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(bits), 23);
        return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(v), n));
    }
    static vector times_power_of_two(vector v, vector bits) {
        return { shifted(v.low, bits.low), shifted(v.high, bits.high) };
    }
    static counts no_counts() { return { _mm256_setzero_si256(), _mm256_setzero_si256() }; }
    static counts count(vector v, counts c) {
        return { _mm256_add_epi32(c.low, _mm256_cvtps_epi32(v.low)), _mm256_add_epi32(c.high, _mm256_cvtps_epi32(v.high)) };
    }
    static int64_t sum(counts c) {
        alignas(32) int32_t n[16];
        _mm256_store_si256((__m256i *) n, c.low);
        _mm256_store_si256((__m256i *) (n + 8), c.high);
        int64_t sum = 0;
        for (int i = 0; i < 16; ++i) {
            sum += n[i];
        }
        return sum;
    }

    static void transpose(const uint16_t * rows, size_t stride, uint16_t * out) {
        transpose_eight(rows, stride, out);
        transpose_eight(rows + 8, stride, out + 8*TILE);
    }
    // Eight columns. A half of a vector is a row at first: row 8 half + i of vector i.
    static void transpose_eight(const uint16_t * rows, size_t stride, uint16_t * out) {
        const auto row = [&](int i) { return _mm_loadu_si128((const __m128i *) ((const char *) rows + i*stride)); };
        __m256i x[8], y[8];
        for (int i = 0; i < 8; ++i) {
            x[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(row(i)), row(i + 8), 1);
        }
        for (int i = 0; i < 4; ++i) {
            y[2*i]     = _mm256_unpacklo_epi16(x[2*i], x[2*i + 1]);
            y[2*i + 1] = _mm256_unpackhi_epi16(x[2*i], x[2*i + 1]);
        }
        for (int i = 0; i < 2; ++i) {
            for (int j = 0; j < 2; ++j) {
                x[4*i + 2*j]     = _mm256_unpacklo_epi32(y[4*i + j], y[4*i + j + 2]);
                x[4*i + 2*j + 1] = _mm256_unpackhi_epi32(y[4*i + j], y[4*i + j + 2]);
            }
        }
        for (int i = 0; i < 4; ++i) {
            _mm256_storeu_si256((__m256i *) (out + 2*i*TILE), _mm256_unpacklo_epi64(x[i], x[i + 4]));
            _mm256_storeu_si256((__m256i *) (out + (2*i + 1)*TILE), _mm256_unpackhi_epi64(x[i], x[i + 4]));
        }
    }
    static void transpose(const float * rows, size_t stride, float * out) {
        for (int i = 0; i < 16; i += 8) {
            for (int j = 0; j < 16; j += 8) {
                transpose_eight((const float *) ((const char *) rows + i*stride) + j, stride, out + j*TILE + i);
            }
        }
    }
    static void transpose_eight(const float * rows, size_t stride, float * out) {
        __m256 x[8], y[8];
        for (int i = 0; i < 8; ++i) {
            x[i] = _mm256_loadu_ps((const float *) ((const char *) rows + i*stride));
        }
        // 4 x 4 floats within each half of the vectors, then the halves
        for (int i = 0; i < 8; i += 2) {
            y[i]     = _mm256_unpacklo_ps(x[i], x[i + 1]);
            y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
        }
        for (int i = 0; i < 8; i += 4) {
            x[i]     = _mm256_shuffle_ps(y[i], y[i + 2], 0x44);
            x[i + 1] = _mm256_shuffle_ps(y[i], y[i + 2], 0xEE);
            x[i + 2] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0x44);
            x[i + 3] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0xEE);
        }
        for (int i = 0; i < 4; ++i) {
            _mm256_storeu_ps(out + i*TILE, _mm256_permute2f128_ps(x[i], x[i + 4], 0x20));
            _mm256_storeu_ps(out + (i + 4)*TILE, _mm256_permute2f128_ps(x[i], x[i + 4], 0x31));
        }
    }
};

}  // namespace

kernels avx2_kernels() {
    return kernels_of<avx2>();
}

}  // namespace edgellm::attention
