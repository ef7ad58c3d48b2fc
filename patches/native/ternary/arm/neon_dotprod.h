// ARMv8.2 dot products: SDOT by lane multiplies four rows x four columns by four activations of one token.
// Included like finish.h.
#pragma once

#include "neon.h"

#include "../groups.h"

namespace edgellm::ternary {

namespace {

constexpr int DOTPROD_TILE  = 4;
constexpr int DOTPROD_GROUP = 16;  // one load is 16 columns of one token, its lanes the four groups of four

template <int N>
struct dotprod_accumulators {
    dotprod_accumulators<N - 1> before;
    int32x4_t r0, r1, r2, r3;  // rows 0-3, 4-7, 8-11, 12-15

    void clear() {
        before.clear();
        r0 = r1 = r2 = r3 = vdupq_n_s32(0);
    }
    template <int S>
    void add(int8x16_t c0, int8x16_t c1, int8x16_t c2, int8x16_t c3, const int8_t * q) {
        before.template add<S>(c0, c1, c2, c3, q);
        const int8x16_t a = vld1q_s8(q + DOTPROD_GROUP*(N - 1));
        r0 = vdotq_laneq_s32(r0, c0, a, S);
        r1 = vdotq_laneq_s32(r1, c1, a, S);
        r2 = vdotq_laneq_s32(r2, c2, a, S);
        r3 = vdotq_laneq_s32(r3, c3, a, S);
    }
    void store(int32_t (*sums)[PANEL_ROWS]) const {
        before.store(sums);
        vst1q_s32(&sums[N - 1][0], r0);
        vst1q_s32(&sums[N - 1][4], r1);
        vst1q_s32(&sums[N - 1][8], r2);
        vst1q_s32(&sums[N - 1][12], r3);
    }
};

template <>
struct dotprod_accumulators<0> {
    void clear() {}
    template <int S>
    void add(int8x16_t, int8x16_t, int8x16_t, int8x16_t, const int8_t *) {}
    void store(int32_t (*)[PANEL_ROWS]) const {}
};

template <int N>
struct dotprod_dot {
    template <int S>
    static void step(dotprod_accumulators<N> & acc, const uint8x16_t * w, const int8_t * q) {
        acc.template add<S>(field<S>(w[0]), field<S>(w[1]), field<S>(w[2]), field<S>(w[3]), q);
    }
    static constexpr int PANELS = 1;
    static void run(const uint8_t * block, int64_t, int64_t n_blocks, const int8_t * q, int32_t (*sums)[PANEL_ROWS]) {
        dotprod_accumulators<N> acc;
        acc.clear();
        for (int64_t b = 0; b < n_blocks; ++b, block += BLOCK_BYTES, q += N*BLOCK_COLUMNS) {
            __builtin_prefetch(block + 2048);
            const uint8x16_t w[4] = { vld1q_u8(block), vld1q_u8(block + 16), vld1q_u8(block + 32), vld1q_u8(block + 48) };
            step<0>(acc, w, q);
            step<1>(acc, w, q);
            step<2>(acc, w, q);
            step<3>(acc, w, q);
        }
        acc.store(sums);
    }
};

// What groups.h asks for.
template <int>
struct dotprod_groups {
    static constexpr int STEPS = 8, WIDTH = 1;
    struct codes { int8x16_t r0, r1, r2, r3; };  // rows 0-3, 4-7, 8-11, 12-15
    struct sums { int32x4_t r0, r1, r2, r3; };
    struct floats { float32x4_t r0, r1, r2, r3; };
    struct block { uint8x16_t r0, r1, r2, r3; };
    template <int BITS>
    struct segment { block of[BITS]; };

    static block load_block(const uint8_t * b) {
        __builtin_prefetch(b + 2048);
        return { vld1q_u8(b), vld1q_u8(b + 16), vld1q_u8(b + 32), vld1q_u8(b + 48) };
    }
    template <int BITS>
    static segment<BITS> load(const uint8_t * blocks) {
        if constexpr (BITS == 2) {
            return { { load_block(blocks), load_block(blocks + BLOCK_BYTES) } };
        } else {
            return { { load_block(blocks) } };
        }
    }

    template <int BITS, int STEP>
    static int8x16_t codes_of(uint8x16_t bytes) {
        if constexpr (BITS == 2) {
            return ternary::field<STEP%4>(bytes);
        } else if constexpr (STEP == 0) {
            return vreinterpretq_s8_u8(vandq_u8(vaddq_u8(bytes, bytes), vdupq_n_u8(2)));
        } else if constexpr (STEP == 1) {
            return vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(2)));
        } else {
            return vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(bytes, STEP - 1), vdupq_n_u8(2)));
        }
    }
    template <int BITS, int STEP>
    static codes field(const segment<BITS> & s) {
        const block & b = s.of[STEP/4*(BITS - 1)];
        return { codes_of<BITS, STEP>(b.r0), codes_of<BITS, STEP>(b.r1), codes_of<BITS, STEP>(b.r2),
                 codes_of<BITS, STEP>(b.r3) };
    }

    static sums start(const int32_t * offset, int64_t) {
        const int32x4_t n = vdupq_n_s32(*offset);
        return { n, n, n, n };
    }
    template <int BITS, int STEP, int TOKENS>
    static void add(sums & s, const codes & c, const int8_t * q, int token) {
        const int8x16_t a = vld1q_s8(q + (STEP/4*TOKENS + token)*DOTPROD_GROUP);
        s.r0 = vdotq_laneq_s32(s.r0, c.r0, a, STEP%4);
        s.r1 = vdotq_laneq_s32(s.r1, c.r1, a, STEP%4);
        s.r2 = vdotq_laneq_s32(s.r2, c.r2, a, STEP%4);
        s.r3 = vdotq_laneq_s32(s.r3, c.r3, a, STEP%4);
    }
    static floats zero() { return { vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0), vdupq_n_f32(0) }; }
    static void add_sums(floats & total, const sums & s, const float * factor, int64_t) {
        total.r0 = vfmaq_n_f32(total.r0, vcvtq_f32_s32(s.r0), *factor);
        total.r1 = vfmaq_n_f32(total.r1, vcvtq_f32_s32(s.r1), *factor);
        total.r2 = vfmaq_n_f32(total.r2, vcvtq_f32_s32(s.r2), *factor);
        total.r3 = vfmaq_n_f32(total.r3, vcvtq_f32_s32(s.r3), *factor);
    }
    static void add_part(floats & total, const floats & part, const floats & scales) {
        total.r0 = vfmaq_f32(total.r0, part.r0, scales.r0);
        total.r1 = vfmaq_f32(total.r1, part.r1, scales.r1);
        total.r2 = vfmaq_f32(total.r2, part.r2, scales.r2);
        total.r3 = vfmaq_f32(total.r3, part.r3, scales.r3);
    }
    static floats scales(const uint16_t * halves) {
        const float16x8_t low  = vreinterpretq_f16_u16(vld1q_u16(halves));
        const float16x8_t high = vreinterpretq_f16_u16(vld1q_u16(halves + 8));
        return { vcvt_f32_f16(vget_low_f16(low)), vcvt_high_f32_f16(low), vcvt_f32_f16(vget_low_f16(high)),
                 vcvt_high_f32_f16(high) };
    }
    static void store(const floats & f, float (*y)[PANEL_ROWS]) {
        vst1q_f32(&y[0][0], f.r0);
        vst1q_f32(&y[0][4], f.r1);
        vst1q_f32(&y[0][8], f.r2);
        vst1q_f32(&y[0][12], f.r3);
    }
};

}  // namespace

}  // namespace edgellm::ternary
