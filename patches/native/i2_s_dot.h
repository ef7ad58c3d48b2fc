// Dot products of I2_S codes with int8 activations, exact in int32 on every instruction set.
//
//     i2_s_dot(row, q, n)  ->  sum over n of code * q,   code in 0 .. 3, n % 128 == 0
//
// Bounds. A code is at most 3 (a damaged file; sound ones stop at 2) and |q| at most 128, so the sum stays within
// 384 n: int32 holds it up to I2_S_MAX_COLUMNS. The AVX2 kernel adds pairs of products in int16 lanes, each pair at
// most 768 in magnitude: eight blocks put 32 pairs into a lane, 24576 < 32768, before it is widened.
#pragma once

#include "i2_s.h"

#include <algorithm>
#include <cstdint>

#if defined(__AVX2__)
#    include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__ARM_FEATURE_DOTPROD)
#    include <arm_neon.h>
#endif

namespace edgellm {

constexpr int64_t I2_S_MAX_COLUMNS = int64_t(1) << 22;

#if defined(__AVX2__)

constexpr int64_t I2_S_BLOCKS_PER_LANE = 8;

// The sums of one block, added to the 16 int16 lanes of `sums`.
inline __m256i i2_s_add_block(__m256i sums, const uint8_t * block, const int8_t * q) {
    const __m256i mask  = _mm256_set1_epi8(3);
    const __m256i codes = _mm256_loadu_si256((const __m256i *) block);
    const __m256i * a   = (const __m256i *) q;
    const __m256i c0 = _mm256_and_si256(_mm256_srli_epi16(codes, 6), mask);
    const __m256i c1 = _mm256_and_si256(_mm256_srli_epi16(codes, 4), mask);
    const __m256i c2 = _mm256_and_si256(_mm256_srli_epi16(codes, 2), mask);
    const __m256i c3 = _mm256_and_si256(codes, mask);
    sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(c0, _mm256_loadu_si256(a + 0)));
    sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(c1, _mm256_loadu_si256(a + 1)));
    sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(c2, _mm256_loadu_si256(a + 2)));
    sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(c3, _mm256_loadu_si256(a + 3)));
    return sums;
}

inline int32_t i2_s_dot(const uint8_t * row, const int8_t * q, int64_t n) {
    const int64_t n_blocks = n / I2_S_BLOCK_WEIGHTS;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i total = _mm256_setzero_si256();
    for (int64_t first = 0; first < n_blocks; first += I2_S_BLOCKS_PER_LANE) {
        const int64_t last = std::min(first + I2_S_BLOCKS_PER_LANE, n_blocks);
        __m256i sums = _mm256_setzero_si256();
        for (int64_t b = first; b < last; ++b) {
            sums = i2_s_add_block(sums, row + b*I2_S_BLOCK_BYTES, q + b*I2_S_BLOCK_WEIGHTS);
        }
        total = _mm256_add_epi32(total, _mm256_madd_epi16(sums, ones));
    }
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    return _mm_cvtsi128_si32(half);
}

#elif defined(__ARM_NEON) && defined(__ARM_FEATURE_DOTPROD)

inline int32_t i2_s_dot(const uint8_t * row, const int8_t * q, int64_t n) {
    const uint8x16_t mask = vdupq_n_u8(3);
    int32x4_t low  = vdupq_n_s32(0);
    int32x4_t high = vdupq_n_s32(0);
    for (int64_t i = 0; i < n; i += I2_S_BLOCK_WEIGHTS, row += I2_S_BLOCK_BYTES, q += I2_S_BLOCK_WEIGHTS) {
        const uint8x16_t a = vld1q_u8(row);
        const uint8x16_t b = vld1q_u8(row + 16);
        low  = vdotq_s32(low,  vreinterpretq_s8_u8(vshrq_n_u8(a, 6)),                 vld1q_s8(q));
        high = vdotq_s32(high, vreinterpretq_s8_u8(vshrq_n_u8(b, 6)),                 vld1q_s8(q + 16));
        low  = vdotq_s32(low,  vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(a, 4), mask)), vld1q_s8(q + 32));
        high = vdotq_s32(high, vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(b, 4), mask)), vld1q_s8(q + 48));
        low  = vdotq_s32(low,  vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(a, 2), mask)), vld1q_s8(q + 64));
        high = vdotq_s32(high, vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(b, 2), mask)), vld1q_s8(q + 80));
        low  = vdotq_s32(low,  vreinterpretq_s8_u8(vandq_u8(a, mask)),                vld1q_s8(q + 96));
        high = vdotq_s32(high, vreinterpretq_s8_u8(vandq_u8(b, mask)),                vld1q_s8(q + 112));
    }
    return vaddvq_s32(vaddq_s32(low, high));
}

#else

inline int32_t i2_s_dot(const uint8_t * row, const int8_t * q, int64_t n) {
    int32_t total = 0;
    for (int64_t i = 0; i < n; i += I2_S_BLOCK_WEIGHTS, row += I2_S_BLOCK_BYTES, q += I2_S_BLOCK_WEIGHTS) {
        for (int p = 0; p < I2_S_BLOCK_BYTES; ++p) {
            const int byte = row[p];
            total += (byte >> 6)*q[p] + (byte >> 4 & 3)*q[32 + p] + (byte >> 2 & 3)*q[64 + p] + (byte & 3)*q[96 + p];
        }
    }
    return total;
}

#endif

}  // namespace edgellm
