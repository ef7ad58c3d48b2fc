// ARMv8.6 int8 matrix products: SMMLA multiplies two rows x eight columns by eight columns x two tokens.
//
// Bit pairs s and s + 1 of four rows, zipped by 32 bits, are two pairs of rows with eight columns each.

#include "neon_dotprod.h"

namespace edgellm::ternary {

namespace {

constexpr int TILE  = 8;
constexpr int GROUP_TILE = 4;  // the sums of two pairs stay in registers
constexpr int GROUP = 8;  // one load is eight columns of two tokens; a single token lies as for SDOT

// The sums of a pair of tokens: each vector is two rows x two tokens, [row][token].
template <int PAIRS>
struct accumulators {
    accumulators<PAIRS - 1> before;
    int32x4_t r[8];

    void clear() {
        before.clear();
        for (int i = 0; i < 8; ++i) {
            r[i] = vdupq_n_s32(0);
        }
    }
    // Rows 4 i .. 4 i + 3, eight columns.
    template <int I>
    void add(int8x16_t low, int8x16_t high, const int8_t * q) {
        before.template add<I>(low, high, q);
        const int8x16_t a = vld1q_s8(q + 2*GROUP*(PAIRS - 1));
        r[2*I]     = vmmlaq_s32(r[2*I], low, a);
        r[2*I + 1] = vmmlaq_s32(r[2*I + 1], high, a);
    }
    void store(int32_t (*sums)[PANEL_ROWS]) const {
        before.store(sums);
        for (int i = 0; i < 8; ++i) {
            sums[2*PAIRS - 2][2*i]     = vgetq_lane_s32(r[i], 0);
            sums[2*PAIRS - 1][2*i]     = vgetq_lane_s32(r[i], 1);
            sums[2*PAIRS - 2][2*i + 1] = vgetq_lane_s32(r[i], 2);
            sums[2*PAIRS - 1][2*i + 1] = vgetq_lane_s32(r[i], 3);
        }
    }
};

template <>
struct accumulators<0> {
    void clear() {}
    template <int I>
    void add(int8x16_t, int8x16_t, const int8_t *) {}
    void store(int32_t (*)[PANEL_ROWS]) const {}
};

template <int N>
struct dot {
    template <int I>
    static void rows(accumulators<N/2> & acc, const uint8_t * block, const int8_t * q) {
        const uint8x16_t w = vld1q_u8(block + 16*I);
        pair<I>(acc, field<0>(w), field<1>(w), q);
        pair<I>(acc, field<2>(w), field<3>(w), q + N*GROUP);
    }
    template <int I>
    static void pair(accumulators<N/2> & acc, int8x16_t even, int8x16_t odd, const int8_t * q) {
        const int32x4_t e = vreinterpretq_s32_s8(even), o = vreinterpretq_s32_s8(odd);
        acc.template add<I>(vreinterpretq_s8_s32(vzip1q_s32(e, o)), vreinterpretq_s8_s32(vzip2q_s32(e, o)), q);
    }
    static constexpr int PANELS = 1;
    static void run(const uint8_t * block, int64_t, int64_t n_blocks, const int8_t * q, int32_t (*sums)[PANEL_ROWS]) {
        static_assert(N % 2 == 0, "tokens come in pairs");
        accumulators<N/2> acc;
        acc.clear();
        for (int64_t b = 0; b < n_blocks; ++b, block += BLOCK_BYTES, q += N*BLOCK_COLUMNS) {
            __builtin_prefetch(block + 2048);
            rows<0>(acc, block, q);
            rows<1>(acc, block, q);
            rows<2>(acc, block, q);
            rows<3>(acc, block, q);
        }
        acc.store(sums);
    }
};

// Widths that do not occur: a tile is padded to whole pairs.
template <>
struct dot<1> {
    static constexpr int PANELS = 1;
    static void run(const uint8_t *, int64_t, int64_t, const int8_t *, int32_t (*)[PANEL_ROWS]) {}
};
template <> struct dot<3> : dot<1> {};
template <> struct dot<5> : dot<1> {};
template <> struct dot<7> : dot<1> {};

// What groups.h asks for, for a pair of tokens.
struct paired_groups {
    static constexpr int STEPS = 4, WIDTH = 2;
    using one = dotprod_groups<1>;
    struct codes { int8x16_t r[8]; };       // two rows x eight columns
    struct sums { int32x4_t r[8]; };        // two rows x two tokens
    struct floats { float32x4_t r[8]; };

    template <int BITS>
    static one::segment<BITS> load(const uint8_t * blocks) { return one::load<BITS>(blocks); }

    template <int BITS, int STEP>
    static codes field(const one::segment<BITS> & s) {
        const one::codes even = one::field<BITS, 2*STEP>(s), odd = one::field<BITS, 2*STEP + 1>(s);
        return { { low(even.r0, odd.r0), high(even.r0, odd.r0), low(even.r1, odd.r1), high(even.r1, odd.r1),
                   low(even.r2, odd.r2), high(even.r2, odd.r2), low(even.r3, odd.r3), high(even.r3, odd.r3) } };
    }
    static sums start(const int32_t * offsets, int64_t stride) {
        const int32x2_t pair = vset_lane_s32(offsets[stride], vdup_n_s32(offsets[0]), 1);
        const int32x4_t n = vcombine_s32(pair, pair);
        return { { n, n, n, n, n, n, n, n } };
    }
    template <int BITS, int STEP, int TOKENS>
    static void add(sums & s, const codes & c, const int8_t * q, int token) {
        const int8x16_t a = vld1q_s8(q + (STEP*TOKENS + token)*GROUP);
        for (int i = 0; i < 8; ++i) { s.r[i] = vmmlaq_s32(s.r[i], c.r[i], a); }
    }
    static floats zero() {
        const float32x4_t z = vdupq_n_f32(0);
        return { { z, z, z, z, z, z, z, z } };
    }
    static void add_sums(floats & total, const sums & s, const float * factors, int64_t stride) {
        const float32x2_t pair = vset_lane_f32(factors[stride], vdup_n_f32(factors[0]), 1);
        const float32x4_t f = vcombine_f32(pair, pair);
        for (int i = 0; i < 8; ++i) { total.r[i] = vfmaq_f32(total.r[i], vcvtq_f32_s32(s.r[i]), f); }
    }
    static void add_part(floats & total, const floats & part, const floats & scales) {
        for (int i = 0; i < 8; ++i) { total.r[i] = vfmaq_f32(total.r[i], part.r[i], scales.r[i]); }
    }
    static floats scales(const uint16_t * halves) {
        const one::floats d = one::scales(halves);
        return { { vzip1q_f32(d.r0, d.r0), vzip2q_f32(d.r0, d.r0), vzip1q_f32(d.r1, d.r1), vzip2q_f32(d.r1, d.r1),
                   vzip1q_f32(d.r2, d.r2), vzip2q_f32(d.r2, d.r2), vzip1q_f32(d.r3, d.r3), vzip2q_f32(d.r3, d.r3) } };
    }
    static void store(const floats & f, float (*y)[PANEL_ROWS]) {
        for (int i = 0; i < 4; ++i) {
            vst1q_f32(&y[0][4*i], vuzp1q_f32(f.r[2*i], f.r[2*i + 1]));
            vst1q_f32(&y[1][4*i], vuzp2q_f32(f.r[2*i], f.r[2*i + 1]));
        }
    }

  private:
    static int8x16_t low(int8x16_t even, int8x16_t odd) {
        return vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(even), vreinterpretq_s32_s8(odd)));
    }
    static int8x16_t high(int8x16_t even, int8x16_t odd) {
        return vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(even), vreinterpretq_s32_s8(odd)));
    }
};

template <int N>
struct group_isa : paired_groups {};
template <>
struct group_isa<1> : dotprod_groups<1> {};

void multiply_rows(const matrix & w, const activations & a, int64_t first, int64_t last, float * y, int64_t y_stride) {
    if (a.n_tokens == 1) {  // half of each product would be for nothing
        multiply_tiles<rows<dotprod_dot>::tile, 1, 1>(w, a, first, last, y, y_stride);
    } else {
        multiply_tiles<rows<dot>::tile, TILE, 2>(w, a, first, last, y, y_stride);
    }
}

template <int BITS>
void multiply_groups(const matrix & w, const activations & a, int64_t first, int64_t last, float * y, int64_t y_stride) {
    if (a.n_tokens == 1) {
        multiply_tiles<groups<group_isa, BITS>::template tile, 1, 1>(w, a, first, last, y, y_stride);
    } else {
        multiply_tiles<groups<group_isa, BITS>::template tile, GROUP_TILE, 2>(w, a, first, last, y, y_stride);
    }
}

}  // namespace

const kernel_set * neon_i8mm_kernels() {
    static const kernel_set k = {
        { GROUP, TILE, 2, absolute_maximum_neon, quantize_neon, multiply_rows },
        { GROUP, GROUP_TILE, 2, absolute_maximum_neon, quantize_neon, multiply_groups<2> },
        { GROUP, GROUP_TILE, 2, absolute_maximum_neon, quantize_neon, multiply_groups<1> },
    };
    return &k;
}

}  // namespace edgellm::ternary
