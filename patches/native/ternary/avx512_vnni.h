// The AVX-512 VNNI kernel; AMX takes over from it only where several tokens come together. Included like finish.h.
#pragma once

#include "finish.h"
#include "x86_activations.h"

namespace edgellm::ternary {

namespace {

constexpr int AVX512_TILE = 8;

inline __m512i four_512(const int8_t * q) {
    return _mm512_castps_si512(_mm512_broadcastss_ps(_mm_load_ss((const float *) q)));
}

// The sums of N tokens and two panels: four activations, once in a register, serve both.
template <int N>
struct avx512_accumulators {
    avx512_accumulators<N - 1> before;
    __m512i a, b;

    void clear() {
        before.clear();
        a = b = _mm512_setzero_si512();
    }
    void add(__m512i codes_a, __m512i codes_b, const int8_t * q) {
        before.add(codes_a, codes_b, q);
        const __m512i four = four_512(q + 4*(N - 1));
        a = _mm512_dpbusd_epi32(a, codes_a, four);
        b = _mm512_dpbusd_epi32(b, codes_b, four);
    }
    template <int WIDTH>
    void store(int32_t (*sums)[PANEL_ROWS]) const {
        before.template store<WIDTH>(sums);
        _mm512_store_si512(sums[N - 1], a);
        _mm512_store_si512(sums[WIDTH + N - 1], b);
    }
};

template <>
struct avx512_accumulators<0> {
    void clear() {}
    void add(__m512i, __m512i, const int8_t *) {}
    template <int WIDTH>
    void store(int32_t (*)[PANEL_ROWS]) const {}
};

template <int N>
struct avx512_dot {
    static constexpr int PANELS = 2;

    static void run(const uint8_t * block, int64_t next, int64_t n_blocks, const int8_t * q,
                    int32_t (*sums)[PANEL_ROWS]) {
        const __m512i mask = _mm512_set1_epi8(3);
        avx512_accumulators<N> acc;
        acc.clear();
        for (int64_t i = 0; i < n_blocks; ++i, block += BLOCK_BYTES, q += N*BLOCK_COLUMNS) {
            __m512i a = _mm512_loadu_si512(block);
            __m512i b = _mm512_loadu_si512(block + next);
            acc.add(_mm512_and_si512(a, mask), _mm512_and_si512(b, mask), q);
            a = _mm512_srli_epi16(a, 2), b = _mm512_srli_epi16(b, 2);
            acc.add(_mm512_and_si512(a, mask), _mm512_and_si512(b, mask), q + 4*N);
            a = _mm512_srli_epi16(a, 2), b = _mm512_srli_epi16(b, 2);
            acc.add(_mm512_and_si512(a, mask), _mm512_and_si512(b, mask), q + 8*N);
            a = _mm512_srli_epi16(a, 2), b = _mm512_srli_epi16(b, 2);
            acc.add(_mm512_and_si512(a, mask), _mm512_and_si512(b, mask), q + 12*N);
        }
        acc.template store<N>(sums);
    }
};

// One token waits for memory, not for arithmetic: codes are masked but not shifted, and the sums, 1, 4, 16 and 64
// times too large, are divided at the end, exactly.
template <>
struct avx512_dot<1> {
    static constexpr int PANELS = 2;

    static __m512i total(__m512i s0, __m512i s1, __m512i s2, __m512i s3) {
        return _mm512_add_epi32(_mm512_add_epi32(s0, _mm512_srai_epi32(s1, 2)),
                                _mm512_add_epi32(_mm512_srai_epi32(s2, 4), _mm512_srai_epi32(s3, 6)));
    }
    static void run(const uint8_t * block, int64_t next, int64_t n_blocks, const int8_t * q,
                    int32_t (*sums)[PANEL_ROWS]) {
        const __m512i m0 = _mm512_set1_epi8(3), m1 = _mm512_set1_epi8(3 << 2);
        const __m512i m2 = _mm512_set1_epi8(3 << 4), m3 = _mm512_set1_epi8((char) (3 << 6));
        __m512i a0 = _mm512_setzero_si512(), a1 = a0, a2 = a0, a3 = a0;
        __m512i b0 = a0, b1 = a0, b2 = a0, b3 = a0;
        for (int64_t i = 0; i < n_blocks; ++i, block += BLOCK_BYTES, q += BLOCK_COLUMNS) {
            _mm_prefetch((const char *) block + PREFETCH_BYTES, _MM_HINT_T0);
            _mm_prefetch((const char *) block + next + PREFETCH_BYTES, _MM_HINT_T0);
            const __m512i a = _mm512_loadu_si512(block);
            const __m512i b = _mm512_loadu_si512(block + next);
            const __m512i q0 = four_512(q), q1 = four_512(q + 4), q2 = four_512(q + 8), q3 = four_512(q + 12);
            a0 = _mm512_dpbusd_epi32(a0, _mm512_and_si512(a, m0), q0);
            b0 = _mm512_dpbusd_epi32(b0, _mm512_and_si512(b, m0), q0);
            a1 = _mm512_dpbusd_epi32(a1, _mm512_and_si512(a, m1), q1);
            b1 = _mm512_dpbusd_epi32(b1, _mm512_and_si512(b, m1), q1);
            a2 = _mm512_dpbusd_epi32(a2, _mm512_and_si512(a, m2), q2);
            b2 = _mm512_dpbusd_epi32(b2, _mm512_and_si512(b, m2), q2);
            a3 = _mm512_dpbusd_epi32(a3, _mm512_and_si512(a, m3), q3);
            b3 = _mm512_dpbusd_epi32(b3, _mm512_and_si512(b, m3), q3);
        }
        _mm512_store_si512(sums[0], total(a0, a1, a2, a3));
        _mm512_store_si512(sums[1], total(b0, b1, b2, b3));
    }
};

}  // namespace

}  // namespace edgellm::ternary
