// AVX2: VPMADDUBSW adds pairs of products in int16 lanes.
//
// Bounds: a code is at most 3 and |q| at most 128, so a pair is at most 768 in magnitude; a lane takes four pairs a
// block, and eight blocks make 24576 < 32768 before the lanes are widened to int32.

#include "finish.h"
#include "x86_activations.h"

namespace edgellm::ternary {

namespace {

constexpr int     TILE             = 4;
constexpr int64_t BLOCKS_PER_LANE  = 8;

// Running sums of N tokens; a chain of structs, because gcc keeps an array of them on the stack.
template <int N>
struct accumulators {
    accumulators<N - 1> before;
    __m256i short_a, short_b;  // rows 0-7 and 8-15, int16 pairs
    __m256i a, b;              // the same in int32

    void clear() {
        before.clear();
        a = b = _mm256_setzero_si256();
        short_a = short_b = _mm256_setzero_si256();
    }
    void add(__m256i codes_a, __m256i codes_b, const int8_t * q) {
        before.add(codes_a, codes_b, q);
        const __m256i four = four_256(q + 4*(N - 1));
        short_a = _mm256_add_epi16(short_a, _mm256_maddubs_epi16(codes_a, four));
        short_b = _mm256_add_epi16(short_b, _mm256_maddubs_epi16(codes_b, four));
    }
    void widen() {
        before.widen();
        const __m256i ones = _mm256_set1_epi16(1);
        a = _mm256_add_epi32(a, _mm256_madd_epi16(short_a, ones));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(short_b, ones));
        short_a = short_b = _mm256_setzero_si256();
    }
    void store(int32_t (*sums)[PANEL_ROWS]) const {
        before.store(sums);
        _mm256_store_si256((__m256i *) &sums[N - 1][0], a);
        _mm256_store_si256((__m256i *) &sums[N - 1][8], b);
    }
};

template <>
struct accumulators<0> {
    void clear() {}
    void add(__m256i, __m256i, const int8_t *) {}
    void widen() {}
    void store(int32_t (*)[PANEL_ROWS]) const {}
};

template <int N>
struct dot {
    static constexpr int PANELS = 1;
    static void run(const uint8_t * block, int64_t, int64_t n_blocks, const int8_t * q, int32_t (*sums)[PANEL_ROWS]) {
        accumulators<N> acc;
        acc.clear();
        while (n_blocks > 0) {
            const int64_t n = n_blocks < BLOCKS_PER_LANE ? n_blocks : BLOCKS_PER_LANE;
            for (int64_t b = 0; b < n; ++b, block += BLOCK_BYTES, q += N*BLOCK_COLUMNS) {
                _mm_prefetch((const char *) block + PREFETCH_BYTES, _MM_HINT_NTA);
                add_block_256<N>(acc, block, q);
            }
            acc.widen();
            n_blocks -= n;
        }
        acc.store(sums);
    }
};

}  // namespace

const kernels * avx2_kernels() {
    static const kernels k = { "avx2", 4, TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<dot, TILE, 1> };
    return &k;
}

}  // namespace edgellm::ternary
