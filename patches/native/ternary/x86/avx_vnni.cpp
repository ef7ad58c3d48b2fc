// AVX-VNNI: VPDPBUSD on 256 bits adds four products to an int32 lane, so nothing can overflow (MAX_COLUMNS).
//
// EDGELLM_EVEX compiles the same code with AVX-512's encoding of the instruction, so that it can be tested on a machine
// that has only that.

#include "groups_256.h"

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
        accumulators<N> acc;
        acc.clear();
        for (int64_t b = 0; b < n_blocks; ++b, block += BLOCK_BYTES, q += N*BLOCK_COLUMNS) {
            add_block_256<N>(acc, block, q);
        }
        acc.store(sums);
    }
};

// One token waits for memory, not for arithmetic: codes are masked but not shifted, and the sums, 1, 4, 16 and 64
// times too large, are divided at the end, exactly.
template <>
struct dot<1> {
    static constexpr int PANELS = 1;
    static __m256i total(__m256i s0, __m256i s1, __m256i s2, __m256i s3) {
        return _mm256_add_epi32(_mm256_add_epi32(s0, _mm256_srai_epi32(s1, 2)),
                                _mm256_add_epi32(_mm256_srai_epi32(s2, 4), _mm256_srai_epi32(s3, 6)));
    }
    static void run(const uint8_t * block, int64_t, int64_t n_blocks, const int8_t * q, int32_t (*sums)[PANEL_ROWS]) {
        const __m256i m0 = _mm256_set1_epi8(3), m1 = _mm256_set1_epi8(3 << 2);
        const __m256i m2 = _mm256_set1_epi8(3 << 4), m3 = _mm256_set1_epi8((char) (3 << 6));
        __m256i a0 = _mm256_setzero_si256(), a1 = a0, a2 = a0, a3 = a0;
        __m256i b0 = a0, b1 = a0, b2 = a0, b3 = a0;
        for (int64_t i = 0; i < n_blocks; ++i, block += BLOCK_BYTES, q += BLOCK_COLUMNS) {
            _mm_prefetch((const char *) block + PREFETCH_BYTES, _MM_HINT_T0);
            const __m256i lo = _mm256_loadu_si256((const __m256i *) block);
            const __m256i hi = _mm256_loadu_si256((const __m256i *) (block + 32));
            a0 = EDGELLM_DPBUSD(a0, _mm256_and_si256(lo, m0), four_256(q));
            b0 = EDGELLM_DPBUSD(b0, _mm256_and_si256(hi, m0), four_256(q));
            a1 = EDGELLM_DPBUSD(a1, _mm256_and_si256(lo, m1), four_256(q + 4));
            b1 = EDGELLM_DPBUSD(b1, _mm256_and_si256(hi, m1), four_256(q + 4));
            a2 = EDGELLM_DPBUSD(a2, _mm256_and_si256(lo, m2), four_256(q + 8));
            b2 = EDGELLM_DPBUSD(b2, _mm256_and_si256(hi, m2), four_256(q + 8));
            a3 = EDGELLM_DPBUSD(a3, _mm256_and_si256(lo, m3), four_256(q + 12));
            b3 = EDGELLM_DPBUSD(b3, _mm256_and_si256(hi, m3), four_256(q + 12));
        }
        _mm256_store_si256((__m256i *) &sums[0][0], total(a0, a1, a2, a3));
        _mm256_store_si256((__m256i *) &sums[0][8], total(b0, b1, b2, b3));
    }
};

struct group_isa_many : group_isa_256 {
    struct sums { __m256i lo, hi; };

    static sums start(const int32_t * offset, int64_t) { return { _mm256_set1_epi32(*offset), _mm256_set1_epi32(*offset) }; }
    template <int BITS, int STEP, int TOKENS>
    static void add(sums & s, const codes & c, const int8_t * q, int token) {
        const __m256i four = four_256(q + (STEP*TOKENS + token)*4);
        s.lo = EDGELLM_DPBUSD(s.lo, c.lo, four);
        s.hi = EDGELLM_DPBUSD(s.hi, c.hi, four);
    }
    static void add_sums(floats & total, const sums & s, const float * factor, int64_t) {
        group_isa_256::add_sums(total, s.lo, s.hi, factor);
    }
};

struct group_isa_single : single_isa_256 {
    struct sums { group_isa_many::sums once, four; };

    static sums start(const int32_t * offset, int64_t) {
        return { group_isa_many::start(offset, 0), { _mm256_setzero_si256(), _mm256_setzero_si256() } };
    }
    template <int BITS, int STEP, int TOKENS>
    static void add(sums & s, const codes & c, const int8_t * q, int token) {
        group_isa_many::add<BITS, STEP, TOKENS>(four_times<BITS, STEP>() ? s.four : s.once, c, q, token);
    }
    static __m256i together(__m256i once, __m256i four) { return _mm256_add_epi32(once, _mm256_srai_epi32(four, 2)); }
    static void add_sums(floats & total, const sums & s, const float * factor, int64_t) {
        group_isa_many::add_sums(total, { together(s.once.lo, s.four.lo), together(s.once.hi, s.four.hi) }, factor, 0);
    }
};

template <int N>
struct group_isa : group_isa_many {};
template <>
struct group_isa<1> : group_isa_single {};

template <int>
struct nibble_isa : group_isa_many {};

template <int>
struct nested_isa : nested_isa_256 {
    using sums = group_isa_many::sums;

    static sums none() { return { _mm256_setzero_si256(), _mm256_setzero_si256() }; }
    static sums start(const int32_t * offset, int64_t) { return group_isa_many::start(offset, 0); }
    template <int BITS, int STEP, int TOKENS>
    static void add(sums & s, const codes & c, const int8_t * q, int token) {
        group_isa_many::add<BITS, STEP, TOKENS>(s, c, q, token);
    }
    static void add_scaled(floats & part, const sums & s, const floats & scales) {
        nested_isa_256::add_scaled(part, s.lo, s.hi, scales);
    }
};

}  // namespace

const kernel_set * avx_vnni_kernels() {
    static const kernel_set k = {
        { 4, TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<rows<dot>::tile, TILE, 1> },
        { 4, TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<groups<group_isa, 2>::tile, TILE, 1> },
        { 4, TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<groups<group_isa, 1>::tile, TILE, 1> },
        { 4, TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<groups<nibble_isa, 4>::tile, TILE, 1>, 8 },
        {
            nested_kernels<nested_isa, TILE>(4, absolute_maximum_256, quantize_256),
            nested_kernels<nested_isa, TILE>(5, absolute_maximum_256, quantize_256),
            nested_kernels<nested_isa, TILE>(6, absolute_maximum_256, quantize_256),
        },
        { 4, TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<minima<nested_isa, 4>::tile, TILE, 1> },
        { 4, TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<groups<nibble_isa, 8>::tile, TILE, 1>, 128 },
    };
    return &k;
}

}  // namespace edgellm::ternary
