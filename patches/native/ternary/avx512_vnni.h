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

// The sums of N tokens and PANELS panels: four activations, once in a register, serve all panels.
template <int N, int PANELS>
struct avx512_accumulators {
    avx512_accumulators<N - 1, PANELS> before;
    __m512i a, b;

    void clear() {
        before.clear();
        a = b = _mm512_setzero_si512();
    }
    void add(__m512i codes_a, __m512i codes_b, const int8_t * q) {
        before.add(codes_a, codes_b, q);
        const __m512i four = four_512(q + 4*(N - 1));
        a = _mm512_dpbusd_epi32(a, codes_a, four);
        if (PANELS == 2) {
            b = _mm512_dpbusd_epi32(b, codes_b, four);
        }
    }
    template <int WIDTH>
    void store(int32_t (*sums)[PANEL_ROWS]) const {
        before.template store<WIDTH>(sums);
        _mm512_store_si512(sums[N - 1], a);
        if (PANELS == 2) {
            _mm512_store_si512(sums[WIDTH + N - 1], b);
        }
    }
};

template <int PANELS>
struct avx512_accumulators<0, PANELS> {
    void clear() {}
    void add(__m512i, __m512i, const int8_t *) {}
    template <int WIDTH>
    void store(int32_t (*)[PANEL_ROWS]) const {}
};

template <int N, int PANELS>
inline void avx512_sums(const uint8_t * block, int64_t next, int64_t n_blocks, const int8_t * q,
                        int32_t (*sums)[PANEL_ROWS]) {
    const __m512i mask = _mm512_set1_epi8(3);
    avx512_accumulators<N, PANELS> acc;
    acc.clear();
    for (int64_t i = 0; i < n_blocks; ++i, block += BLOCK_BYTES, q += N*BLOCK_COLUMNS) {
        _mm_prefetch((const char *) block + PREFETCH_BYTES, _MM_HINT_T0);
        _mm_prefetch((const char *) block + next + PREFETCH_BYTES, _MM_HINT_T0);
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

// A few tokens still wait for memory, which is fastest read from one end to the other: one panel after the other.
// Many wait for arithmetic, and both panels at once halve the loads of activations.
template <int N>
struct avx512_dot {
    static constexpr int PANELS = 2;

    static void run(const uint8_t * block, int64_t next, int64_t n_blocks, const int8_t * q,
                    int32_t (*sums)[PANEL_ROWS]) {
        if (N > 3) {
            avx512_sums<N, 2>(block, next, n_blocks, q, sums);
        } else {
            avx512_sums<N, 1>(block, 0, n_blocks, q, sums);
            avx512_sums<N, 1>(block + next, 0, n_blocks, q, sums + N);
        }
    }
};

// One token waits for memory, not for arithmetic: codes are masked but not shifted, and the sums, 1, 4, 16 and 64
// times too large, are divided at the end, exactly.
template <>
struct avx512_dot<1> {
    static constexpr int PANELS = 2;

    static void run(const uint8_t * block, int64_t next, int64_t n_blocks, const int8_t * q,
                    int32_t (*sums)[PANEL_ROWS]) {
        panel(block, n_blocks, q, sums[0]);
        panel(block + next, n_blocks, q, sums[1]);
    }
    static void panel(const uint8_t * block, int64_t n_blocks, const int8_t * q, int32_t * sums) {
        const __m512i m0 = _mm512_set1_epi8(3), m1 = _mm512_set1_epi8(3 << 2);
        const __m512i m2 = _mm512_set1_epi8(3 << 4), m3 = _mm512_set1_epi8((char) (3 << 6));
        __m512i a0 = _mm512_setzero_si512(), a1 = a0, a2 = a0, a3 = a0;
        for (int64_t i = 0; i < n_blocks; ++i, block += BLOCK_BYTES, q += BLOCK_COLUMNS) {
            _mm_prefetch((const char *) block + PREFETCH_BYTES, _MM_HINT_NTA);
            const __m512i w = _mm512_loadu_si512(block);
            a0 = _mm512_dpbusd_epi32(a0, _mm512_and_si512(w, m0), four_512(q));
            a1 = _mm512_dpbusd_epi32(a1, _mm512_and_si512(w, m1), four_512(q + 4));
            a2 = _mm512_dpbusd_epi32(a2, _mm512_and_si512(w, m2), four_512(q + 8));
            a3 = _mm512_dpbusd_epi32(a3, _mm512_and_si512(w, m3), four_512(q + 12));
        }
        a0 = _mm512_add_epi32(_mm512_add_epi32(a0, _mm512_srai_epi32(a1, 2)),
                              _mm512_add_epi32(_mm512_srai_epi32(a2, 4), _mm512_srai_epi32(a3, 6)));
        _mm512_store_si512(sums, a0);
    }
};

}  // namespace

}  // namespace edgellm::ternary
