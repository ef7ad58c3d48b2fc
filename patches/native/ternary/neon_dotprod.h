// ARMv8.2 dot products: SDOT by lane multiplies four rows x four columns by four activations of one token.
// Included like finish.h.
#pragma once

#include "neon.h"

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

}  // namespace

}  // namespace edgellm::ternary
