// What the x86 kernels share: quantising activations and unpacking a block with 256-bit vectors. Included like
// finish.h.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace edgellm::ternary {

namespace {

inline float absolute_maximum_256(const float * x, int64_t n) {
    // without their sign, the bits of floats order like the floats, NaN above all
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i a = _mm256_setzero_si256();
    __m256i b = _mm256_setzero_si256();
    for (int64_t i = 0; i < n; i += 16) {
        a = _mm256_max_epu32(a, _mm256_and_si256(magnitude, _mm256_loadu_si256((const __m256i *) (x + i))));
        b = _mm256_max_epu32(b, _mm256_and_si256(magnitude, _mm256_loadu_si256((const __m256i *) (x + i + 8))));
    }
    a = _mm256_max_epu32(a, b);
    __m128i m = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xb1));
    return _mm_cvtss_f32(_mm_castsi128_ps(m));
}

inline int32_t quantize_256(const float * x, float s, int8_t * q, int64_t n) {
    const __m256  scale = _mm256_set1_ps(s);
    const __m256  top   = _mm256_set1_ps(127.0f);
    const __m256  low   = _mm256_set1_ps(-128.0f);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i sum = _mm256_setzero_si256();
    for (int64_t i = 0; i < n; i += 32) {
        __m256i v[4];
        for (int k = 0; k < 4; ++k) {
            const int64_t at = i + 8*k < n ? i + 8*k : i;  // n % 32 may be 16: the same again, not stored
            // max(x, low) gives low for NaN
            const __m256 scaled = _mm256_max_ps(_mm256_mul_ps(_mm256_loadu_ps(x + at), scale), low);
            v[k] = _mm256_cvtps_epi32(_mm256_min_ps(scaled, top));
        }
        const bool    whole = i + 32 <= n;
        const __m256i pair  = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
        const __m256i bytes = _mm256_permutevar8x32_epi32(pair, order);
        sum = _mm256_add_epi32(sum, _mm256_add_epi32(v[0], v[1]));
        if (whole) {
            sum = _mm256_add_epi32(sum, _mm256_add_epi32(v[2], v[3]));
            _mm256_storeu_si256((__m256i *) (q + i), bytes);
        } else {
            _mm_storeu_si128((__m128i *) (q + i), _mm256_castsi256_si128(bytes));
        }
    }
    __m128i total = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0x4e));
    total = _mm_add_epi32(total, _mm_shuffle_epi32(total, 0xb1));
    return _mm_cvtsi128_si32(total);
}

// Four activations, repeated.
inline __m256i four_256(const int8_t * q) {
    return _mm256_castps_si256(_mm256_broadcast_ss((const float *) q));
}

// sum += the products of codes and four activations, in int16 pairs. To the compiler the sum is opaque: gcc 12 otherwise
// puts off all additions of a segment, and all products wait for them on the stack.
inline void add_pairs_256(__m256i & sum, __m256i codes, __m256i four) {
    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, four));
    __asm__("" : "+x"(sum));
}

// The four bit pairs of a block, rows 0-7 and rows 8-15, each with the activations of N tokens that go with it.
template <int N, typename Accumulators>
inline void add_block_256(Accumulators & acc, const uint8_t * block, const int8_t * q) {
    const __m256i mask = _mm256_set1_epi8(3);
    const __m256i lo = _mm256_loadu_si256((const __m256i *) block);
    const __m256i hi = _mm256_loadu_si256((const __m256i *) (block + 32));
    acc.add(_mm256_and_si256(lo, mask), _mm256_and_si256(hi, mask), q);
    acc.add(_mm256_and_si256(_mm256_srli_epi16(lo, 2), mask), _mm256_and_si256(_mm256_srli_epi16(hi, 2), mask), q + 4*N);
    acc.add(_mm256_and_si256(_mm256_srli_epi16(lo, 4), mask), _mm256_and_si256(_mm256_srli_epi16(hi, 4), mask), q + 8*N);
    acc.add(_mm256_and_si256(_mm256_srli_epi16(lo, 6), mask), _mm256_and_si256(_mm256_srli_epi16(hi, 6), mask), q + 12*N);
}

}  // namespace

}  // namespace edgellm::ternary
