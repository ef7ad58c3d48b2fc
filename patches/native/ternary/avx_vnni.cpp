// AVX-VNNI: VPDPBUSD on 256 bits adds four products to an int32 lane, so nothing can overflow (MAX_COLUMNS).
//
// EDGELLM_EVEX compiles the same code with AVX-512's encoding of the instruction, so that it can be tested on a machine
// that has only that.

#include "finish.h"
#include "x86_activations.h"

#ifdef EDGELLM_EVEX
#    define EDGELLM_DPBUSD _mm256_dpbusd_epi32
#else
#    define EDGELLM_DPBUSD _mm256_dpbusd_avx_epi32
#endif

namespace edgellm::ternary {

namespace {

constexpr int TILE = 4;

template <int N>
struct accumulators {
    accumulators<N - 1> before;
    __m256i a, b;  // rows 0-7 and 8-15

    void clear() {
        before.clear();
        a = b = _mm256_setzero_si256();
    }
    void add(__m256i codes_a, __m256i codes_b, const int8_t * q) {
        before.add(codes_a, codes_b, q);
        const __m256i four = four_256(q + 4*(N - 1));
        a = EDGELLM_DPBUSD(a, codes_a, four);
        b = EDGELLM_DPBUSD(b, codes_b, four);
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
    void store(int32_t (*)[PANEL_ROWS]) const {}
};

template <int N>
struct dot {
    static constexpr int PANELS = 1;
    static void run(const uint8_t * block, int64_t, int64_t n_blocks, const int8_t * q, int32_t (*sums)[PANEL_ROWS]) {
        const __m256i mask = _mm256_set1_epi8(3);
        accumulators<N> acc;
        acc.clear();
        for (int64_t b = 0; b < n_blocks; ++b, block += BLOCK_BYTES, q += N*BLOCK_COLUMNS) {
            const __m256i lo = _mm256_loadu_si256((const __m256i *) block);
            const __m256i hi = _mm256_loadu_si256((const __m256i *) (block + 32));
            acc.add(_mm256_and_si256(lo, mask), _mm256_and_si256(hi, mask), q);
            acc.add(_mm256_and_si256(_mm256_srli_epi16(lo, 2), mask),
                    _mm256_and_si256(_mm256_srli_epi16(hi, 2), mask), q + 4*N);
            acc.add(_mm256_and_si256(_mm256_srli_epi16(lo, 4), mask),
                    _mm256_and_si256(_mm256_srli_epi16(hi, 4), mask), q + 8*N);
            acc.add(_mm256_and_si256(_mm256_srli_epi16(lo, 6), mask),
                    _mm256_and_si256(_mm256_srli_epi16(hi, 6), mask), q + 12*N);
        }
        acc.store(sums);
    }
};

// One token waits for memory, not for arithmetic: codes are masked but not shifted, and the sums, 1, 4, 16 and 64
// times too large, are divided at the end, exactly.
template <>
struct dot<1> {
    static constexpr int PANELS = 1;
    static void run(const uint8_t * block, int64_t, int64_t n_blocks, const int8_t * q, int32_t (*sums)[PANEL_ROWS]) {
        half(block, n_blocks, q, &sums[0][0]);
        half(block + 32, n_blocks, q, &sums[0][8]);
    }
    static void half(const uint8_t * block, int64_t n_blocks, const int8_t * q, int32_t * sums) {
        const __m256i mask = _mm256_set1_epi8(3);
        __m256i a0 = _mm256_setzero_si256(), a1 = a0, a2 = a0, a3 = a0;
        for (int64_t b = 0; b < n_blocks; ++b, block += BLOCK_BYTES, q += BLOCK_COLUMNS) {
            _mm_prefetch((const char *) block + PREFETCH_BYTES, _MM_HINT_T0);
            const __m256i w = _mm256_loadu_si256((const __m256i *) block);
            a0 = EDGELLM_DPBUSD(a0, _mm256_and_si256(w, mask), four_256(q));
            a1 = EDGELLM_DPBUSD(a1, _mm256_and_si256(w, _mm256_slli_epi16(mask, 2)), four_256(q + 4));
            a2 = EDGELLM_DPBUSD(a2, _mm256_and_si256(w, _mm256_slli_epi16(mask, 4)), four_256(q + 8));
            a3 = EDGELLM_DPBUSD(a3, _mm256_and_si256(w, _mm256_slli_epi16(mask, 6)), four_256(q + 12));
        }
        a0 = _mm256_add_epi32(_mm256_add_epi32(a0, _mm256_srai_epi32(a1, 2)),
                              _mm256_add_epi32(_mm256_srai_epi32(a2, 4), _mm256_srai_epi32(a3, 6)));
        _mm256_store_si256((__m256i *) sums, a0);
    }
};

}  // namespace

const kernels * avx_vnni_kernels() {
    static const kernels k = { "avx-vnni", 4, TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<dot, TILE, 1> };
    return &k;
}

}  // namespace edgellm::ternary
