// AVX-512 VNNI on 256 bits: VPDPBUSD adds four products to an int32 lane, so nothing can overflow (MAX_COLUMNS).

#include "../kernels.h"
#include "../layout.h"

#include <immintrin.h>

namespace edgellm::i2_s {

int32_t dot_avx512_vnni(const uint8_t * row, const int8_t * q, int64_t n) {
    const __m256i mask = _mm256_set1_epi8(3);
    // four sums, so that no addition waits for the one before
    __m256i s0 = _mm256_setzero_si256(), s1 = s0, s2 = s0, s3 = s0;
    for (int64_t i = 0; i < n; i += I2_S_BLOCK_WEIGHTS, row += I2_S_BLOCK_BYTES, q += I2_S_BLOCK_WEIGHTS) {
        const __m256i codes = _mm256_loadu_si256((const __m256i *) row);
        const __m256i * a   = (const __m256i *) q;
        const __m256i c0 = _mm256_and_si256(_mm256_srli_epi16(codes, 6), mask);
        const __m256i c1 = _mm256_and_si256(_mm256_srli_epi16(codes, 4), mask);
        const __m256i c2 = _mm256_and_si256(_mm256_srli_epi16(codes, 2), mask);
        const __m256i c3 = _mm256_and_si256(codes, mask);
        s0 = _mm256_dpbusd_epi32(s0, c0, _mm256_loadu_si256(a + 0));
        s1 = _mm256_dpbusd_epi32(s1, c1, _mm256_loadu_si256(a + 1));
        s2 = _mm256_dpbusd_epi32(s2, c2, _mm256_loadu_si256(a + 2));
        s3 = _mm256_dpbusd_epi32(s3, c3, _mm256_loadu_si256(a + 3));
    }
    const __m256i total = _mm256_add_epi32(_mm256_add_epi32(s0, s1), _mm256_add_epi32(s2, s3));
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    return _mm_cvtsi128_si32(half);
}

}  // namespace edgellm::i2_s
