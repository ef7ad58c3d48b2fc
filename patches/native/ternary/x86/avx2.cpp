// AVX2: VPMADDUBSW adds pairs of products in int16 lanes.
//
// Bounds: a code is at most 3 and |q| at most 128, so a pair is at most 768 in magnitude; a lane takes four pairs a
// block, and eight blocks make 24576 < 32768 before the lanes are widened to int32.

#define EDGELLM_INLINE_STEPS __attribute__((always_inline)) inline

#include "groups_256.h"

namespace edgellm::ternary {

namespace {

constexpr int     TILE             = 4;
constexpr int     BYTE_TILE        = 2;  // of eight bits, whose sums take twice the registers
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
        add_pairs_256(short_a, codes_a, four);
        add_pairs_256(short_b, codes_b, four);
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
                _mm_prefetch((const char *) block + PREFETCH_BYTES, _MM_HINT_T0);
                add_block_256<N>(acc, block, q);
            }
            acc.widen();
            n_blocks -= n;
        }
        acc.store(sums);
    }
};

// Bounds with group scales: a segment is eight pairs, or four that are four times as large, and begins with at most 32 *
// 128: 4096 + 12288 < 32768.
struct group_isa_many : group_isa_256 {
    struct sums { __m256i lo, hi; };  // int16 pairs

    static sums start(const int32_t * offset, int64_t) {
        const __m256i pairs = _mm256_and_si256(_mm256_set1_epi32(*offset), _mm256_set1_epi32(0xffff));
        return { pairs, pairs };
    }
    template <int BITS, int STEP, int TOKENS>
    static void add(sums & s, const codes & c, const int8_t * q, int token) {
        const __m256i four = four_256(q + (STEP*TOKENS + token)*4);
        add_pairs_256(s.lo, c.lo, four);
        add_pairs_256(s.hi, c.hi, four);
    }
    static void add_sums(floats & total, const sums & s, const float * factor, int64_t) {
        const __m256i ones = _mm256_set1_epi16(1);
        group_isa_256::add_sums(total, _mm256_madd_epi16(s.lo, ones), _mm256_madd_epi16(s.hi, ones), factor);
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
    static __m256i together(__m256i once, __m256i four) { return _mm256_add_epi16(once, _mm256_srai_epi16(four, 2)); }
    static void add_sums(floats & total, const sums & s, const float * factor, int64_t) {
        group_isa_many::add_sums(total, { together(s.once.lo, s.four.lo), together(s.once.hi, s.four.hi) }, factor, 0);
    }
};

template <int N>
struct group_isa : group_isa_many {};
template <>
struct group_isa<1> : group_isa_single {};

// Bounds with four bits: a segment is eight pairs of at most 2 * 15 * 128: 30720 < 32768. The offset does not fit beside
// them, and is added when the pairs are widened.
template <int>
struct nibble_isa : group_isa_256 {
    struct sums {
        group_isa_many::sums pairs;
        const int32_t * offset;
    };

    static sums start(const int32_t * offset, int64_t) { return { { _mm256_setzero_si256(), _mm256_setzero_si256() }, offset }; }
    template <int BITS, int STEP, int TOKENS>
    static void add(sums & s, const codes & c, const int8_t * q, int token) {
        group_isa_many::add<BITS, STEP, TOKENS>(s.pairs, c, q, token);
    }
    static void add_sums(floats & total, const sums & s, const float * factor, int64_t) {
        const __m256i ones = _mm256_set1_epi16(1), offset = _mm256_set1_epi32(*s.offset);
        group_isa_256::add_sums(total, _mm256_add_epi32(_mm256_madd_epi16(s.pairs.lo, ones), offset),
                                _mm256_add_epi32(_mm256_madd_epi16(s.pairs.hi, ones), offset), factor);
    }
};

// Bounds with nested scales: a step is a pair of at most 2 * 128 * code; eight of four bits fit, as above, four of five
// bits (31744), and two of six (32256). Then the pairs are widened.
template <int CODE_BITS>
struct nested_isa : nested_isa_256 {
    static constexpr int STEPS_A_SUM = CODE_BITS == 6 ? 4 : 8, STEPS_A_LANE = CODE_BITS == 4 ? 8 : CODE_BITS == 5 ? 4 : 2;
    struct sums {
        group_isa_many::sums pairs;
        __m256i lo, hi;  // int32
    };

    static sums from(__m256i offset) { return { { _mm256_setzero_si256(), _mm256_setzero_si256() }, offset, offset }; }
    static sums none() { return from(_mm256_setzero_si256()); }
    static sums start(const int32_t * offset, int64_t) { return from(_mm256_set1_epi32(*offset)); }
    template <int BITS, int STEP, int TOKENS>
    static void add(sums & s, const codes & c, const int8_t * q, int token) {
        if constexpr (STEP%STEPS_A_SUM != 0 && STEP%STEPS_A_LANE == 0) {
            s = widened(s);
        }
        group_isa_many::add<BITS, STEP, TOKENS>(s.pairs, c, q, token);
    }
    static sums widened(const sums & s) {
        const __m256i ones = _mm256_set1_epi16(1), zero = _mm256_setzero_si256();
        return { { zero, zero }, _mm256_add_epi32(s.lo, _mm256_madd_epi16(s.pairs.lo, ones)),
                 _mm256_add_epi32(s.hi, _mm256_madd_epi16(s.pairs.hi, ones)) };
    }
    static void add_scaled(floats & part, const sums & s, const floats & scales) {
        const sums all = widened(s);
        nested_isa_256::add_scaled(part, all.lo, all.hi, scales);
    }
};

// Eight bits are two codes of four, each with the bounds of nibble_isa; the high one counts 16 times.
template <int>
struct byte_isa : group_isa_256 {
    struct codes { group_isa_256::codes low, high; };
    struct sums {
        group_isa_many::sums low, high;
        const int32_t * offset;
    };

    template <int BITS, int STEP>
    static codes field(const wide_segment & s) {
        const group_isa_256::codes both = group_isa_256::field<BITS, STEP>(s);
        return { bits<0>(both, 15), bits<4>(both, 15) };
    }
    static sums start(const int32_t * offset, int64_t) {
        const group_isa_many::sums none = { _mm256_setzero_si256(), _mm256_setzero_si256() };
        return { none, none, offset };
    }
    template <int BITS, int STEP, int TOKENS>
    static void add(sums & s, const codes & c, const int8_t * q, int token) {
        group_isa_many::add<BITS, STEP, TOKENS>(s.low, c.low, q, token);
        group_isa_many::add<BITS, STEP, TOKENS>(s.high, c.high, q, token);
    }
    static __m256i together(__m256i low, __m256i high, const int32_t * offset) {
        const __m256i sums = _mm256_add_epi32(_mm256_madd_epi16(low, _mm256_set1_epi16(1)),
                                              _mm256_madd_epi16(high, _mm256_set1_epi16(16)));
        return _mm256_add_epi32(sums, _mm256_set1_epi32(*offset));
    }
    static void add_sums(floats & total, const sums & s, const float * factor, int64_t) {
        group_isa_256::add_sums(total, together(s.low.lo, s.high.lo, s.offset), together(s.low.hi, s.high.hi, s.offset),
                                factor);
    }
};

}  // namespace

const kernel_set * avx2_kernels() {
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
        { 4, BYTE_TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<groups<byte_isa, 8>::tile, BYTE_TILE, 1>, 128 },
    };
    return &k;
}

}  // namespace edgellm::ternary
