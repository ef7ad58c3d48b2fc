// AVX2: VPMADDUBSW adds pairs of products in int16 lanes.
//
// Bounds: a pair is at most 2 * 3 * 128 = 768 in magnitude; eight blocks add 32 pairs to a lane, 24576 < 32768, before
// it is widened.

#include "../kernels.h"
#include "../layout.h"

#include <immintrin.h>

namespace edgellm::i2_s {

namespace {

constexpr int64_t BLOCKS_PER_LANE = 8;

// The sums of one block, added to the 16 int16 lanes of `sums`.
inline __m256i add_block(__m256i sums, const uint8_t * block, const int8_t * q) {
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

}  // namespace

int32_t dot_avx2(const uint8_t * row, const int8_t * q, int64_t n) {
    const int64_t n_blocks = n/I2_S_BLOCK_WEIGHTS;
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i total = _mm256_setzero_si256();
    for (int64_t first = 0; first < n_blocks; first += BLOCKS_PER_LANE) {
        const int64_t last = n_blocks - first < BLOCKS_PER_LANE ? n_blocks : first + BLOCKS_PER_LANE;
        __m256i sums = _mm256_setzero_si256();
        for (int64_t b = first; b < last; ++b) {
            sums = add_block(sums, row + b*I2_S_BLOCK_BYTES, q + b*I2_S_BLOCK_WEIGHTS);
        }
        total = _mm256_add_epi32(total, _mm256_madd_epi16(sums, ones));
    }
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    return _mm_cvtsi128_si32(half);
}

}  // namespace edgellm::i2_s
