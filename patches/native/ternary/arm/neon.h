// What both NEON kernels share. Included like finish.h.
#pragma once

#include "../finish.h"

#include <arm_neon.h>

namespace edgellm::ternary {

namespace {

inline float absolute_maximum_neon(const float * x, int64_t n) {
    // without their sign, the bits of floats order like the floats, NaN above all
    const uint32x4_t magnitude = vdupq_n_u32(0x7fffffffu);
    uint32x4_t largest = vdupq_n_u32(0);
    for (int64_t i = 0; i < n; i += 4) {
        largest = vmaxq_u32(largest, vandq_u32(magnitude, vreinterpretq_u32_f32(vld1q_f32(x + i))));
    }
    const uint32_t bits = vmaxvq_u32(largest);
    float maximum;
    __builtin_memcpy(&maximum, &bits, sizeof(maximum));
    return maximum;
}

inline int32x4_t quantize_four(const float * x, float s) {
    const float32x4_t scaled = vmulq_n_f32(vld1q_f32(x), s);
    // FMAXNM and FMINNM prefer the number over NaN
    return vcvtnq_s32_f32(vminnmq_f32(vmaxnmq_f32(scaled, vdupq_n_f32(-128.0f)), vdupq_n_f32(127.0f)));
}

inline int32_t quantize_neon(const float * x, float s, int8_t * q, int64_t n) {
    int32x4_t sum = vdupq_n_s32(0);
    for (int64_t i = 0; i < n; i += 16) {
        const int32x4_t v0 = quantize_four(x + i, s), v1 = quantize_four(x + i + 4, s);
        const int32x4_t v2 = quantize_four(x + i + 8, s), v3 = quantize_four(x + i + 12, s);
        const int16x8_t low  = vcombine_s16(vmovn_s32(v0), vmovn_s32(v1));
        const int16x8_t high = vcombine_s16(vmovn_s32(v2), vmovn_s32(v3));
        vst1q_s8(q + i, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
        sum = vaddq_s32(sum, vaddq_s32(vaddq_s32(v0, v1), vaddq_s32(v2, v3)));
    }
    return vaddvq_s32(sum);
}

// Bit pair `s` of 16 bytes: four rows, four columns each, as int8.
template <int S>
inline int8x16_t field(uint8x16_t bytes) {
    if (S == 0) {
        return vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(3)));
    }
    const uint8x16_t shifted = vshrq_n_u8(bytes, S == 0 ? 1 : 2*S);
    return vreinterpretq_s8_u8(S == 3 ? shifted : vandq_u8(shifted, vdupq_n_u8(3)));
}

}  // namespace

}  // namespace edgellm::ternary
