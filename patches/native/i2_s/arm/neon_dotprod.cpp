// ARMv8.2 dot products: SDOT adds four products to an int32 lane, so nothing can overflow (MAX_COLUMNS).

#include "../kernels.h"
#include "../layout.h"

#include <arm_neon.h>

namespace edgellm::i2_s {

int32_t dot_neon_dotprod(const uint8_t * row, const int8_t * q, int64_t n) {
    const uint8x16_t mask = vdupq_n_u8(3);
    int32x4_t low  = vdupq_n_s32(0);
    int32x4_t high = vdupq_n_s32(0);
    for (int64_t i = 0; i < n; i += I2_S_BLOCK_WEIGHTS, row += I2_S_BLOCK_BYTES, q += I2_S_BLOCK_WEIGHTS) {
        const uint8x16_t a = vld1q_u8(row);
        const uint8x16_t b = vld1q_u8(row + 16);
        low  = vdotq_s32(low,  vreinterpretq_s8_u8(vshrq_n_u8(a, 6)),                 vld1q_s8(q));
        high = vdotq_s32(high, vreinterpretq_s8_u8(vshrq_n_u8(b, 6)),                 vld1q_s8(q + 16));
        low  = vdotq_s32(low,  vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(a, 4), mask)), vld1q_s8(q + 32));
        high = vdotq_s32(high, vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(b, 4), mask)), vld1q_s8(q + 48));
        low  = vdotq_s32(low,  vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(a, 2), mask)), vld1q_s8(q + 64));
        high = vdotq_s32(high, vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(b, 2), mask)), vld1q_s8(q + 80));
        low  = vdotq_s32(low,  vreinterpretq_s8_u8(vandq_u8(a, mask)),                vld1q_s8(q + 96));
        high = vdotq_s32(high, vreinterpretq_s8_u8(vandq_u8(b, mask)),                vld1q_s8(q + 112));
    }
    return vaddvq_s32(vaddq_s32(low, high));
}

}  // namespace edgellm::i2_s
