// The AVX-512 VNNI kernel; AMX takes over from it only where several tokens come together. Included like finish.h.
#pragma once

#include "../finish.h"
#include "activations.h"

namespace edgellm::ternary {

namespace {

constexpr int AVX512_TILE = 8;

// sums + codes x four activations, which the instruction repeats itself; gcc would load and repeat them first.
inline __m512i add_products(__m512i sums, __m512i codes, const int8_t * q) {
#ifdef EDGELLM_AVX512_MODEL
    return _mm512_dpbusd_epi32(sums, codes, q);
#else
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sums) : "v"(codes), "m"(*(const int32_t (*)[1]) q));
    return sums;
#endif
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
        a = add_products(a, codes_a, q + 4*(N - 1));
        if (PANELS == 2) {
            b = add_products(b, codes_b, q + 4*(N - 1));
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

// The sums of N tokens and one panel, a vector for each bit pair of the codes.
template <int N>
struct avx512_pairs {
    avx512_pairs<N - 1> before;
    __m512i of[4];

    void clear() {
        before.clear();
        of[0] = of[1] = of[2] = of[3] = _mm512_setzero_si512();
    }
    template <int TOKENS>
    void add(const __m512i (&codes)[4], const int8_t * q) {
        before.template add<TOKENS>(codes, q);
        of[0] = add_products(of[0], codes[0], q + 4*(N - 1));
        of[1] = add_products(of[1], codes[1], q + 4*(N - 1 + TOKENS));
        of[2] = add_products(of[2], codes[2], q + 4*(N - 1 + 2*TOKENS));
        of[3] = add_products(of[3], codes[3], q + 4*(N - 1 + 3*TOKENS));
    }
    void store(int32_t (*sums)[PANEL_ROWS]) const {
        before.store(sums);
        const __m512i low  = _mm512_add_epi32(of[0], _mm512_srai_epi32(of[1], 2));
        const __m512i high = _mm512_add_epi32(_mm512_srai_epi32(of[2], 4), _mm512_srai_epi32(of[3], 6));
        _mm512_store_si512(sums[N - 1], _mm512_add_epi32(low, high));
    }
};

template <>
struct avx512_pairs<0> {
    void clear() {}
    template <int TOKENS>
    void add(const __m512i (&)[4], const int8_t *) {}
    void store(int32_t (*)[PANEL_ROWS]) const {}
};

// Many tokens wait for arithmetic, and both panels at once halve the loads of activations.
template <int N, bool FEW = (N <= 4)>
struct avx512_sums_of {
    static void run(const uint8_t * block, int64_t next, int64_t n_blocks, const int8_t * q,
                    int32_t (*sums)[PANEL_ROWS]) {
        avx512_sums<N, 2>(block, next, n_blocks, q, sums);
    }
};

// A few tokens wait for memory, which is fastest read from one end to the other: one panel after the other. Codes are
// masked but not shifted, and the sums, 1, 4, 16 and 64 times too large, are divided at the end, exactly. Each bit pair has
// sums of its own also because an addition waits for the one before it.
template <int N>
struct avx512_sums_of<N, true> {
    static void run(const uint8_t * block, int64_t next, int64_t n_blocks, const int8_t * q,
                    int32_t (*sums)[PANEL_ROWS]) {
        panel(block, n_blocks, q, sums);
        panel(block + next, n_blocks, q, sums + N);
    }
    static void panel(const uint8_t * block, int64_t n_blocks, const int8_t * q, int32_t (*sums)[PANEL_ROWS]) {
        const __m512i m0 = _mm512_set1_epi8(3), m1 = _mm512_set1_epi8(3 << 2);
        const __m512i m2 = _mm512_set1_epi8(3 << 4), m3 = _mm512_set1_epi8((char) (3 << 6));
        avx512_pairs<N> acc;
        acc.clear();
        for (int64_t i = 0; i < n_blocks; ++i, block += BLOCK_BYTES, q += N*BLOCK_COLUMNS) {
            _mm_prefetch((const char *) block + PREFETCH_BYTES, _MM_HINT_T0);
            const __m512i w = _mm512_loadu_si512(block);
            const __m512i codes[4] = { _mm512_and_si512(w, m0), _mm512_and_si512(w, m1), _mm512_and_si512(w, m2),
                                       _mm512_and_si512(w, m3) };
            acc.template add<N>(codes, q);
        }
        acc.store(sums);
    }
};

template <int N>
struct avx512_dot : avx512_sums_of<N> {
    static constexpr int PANELS = 2;
};

}  // namespace

}  // namespace edgellm::ternary
