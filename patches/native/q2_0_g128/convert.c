#include "convert.h"

#include <math.h>
#include <string.h>

void dequantize_row_q2_0_g128(const block_q2_0_g128 * blocks, float * y, int64_t n) {
    for (int64_t b = 0; b < n/QK2_0_G128; ++b) {
        const float d = ggml_fp16_to_fp32(blocks[b].d);
        for (int i = 0; i < QK2_0_G128; ++i) {
            *y++ = (float) ((blocks[b].qs[i/4] >> i%4*2 & 3) - 1) * d;
        }
    }
}

void quantize_row_q2_0_g128(const float * x, block_q2_0_g128 * blocks, int64_t n) {
    for (int64_t b = 0; b < n/QK2_0_G128; ++b, x += QK2_0_G128) {
        float d = 0.0f;
        for (int i = 0; i < QK2_0_G128; ++i) {
            d = fmaxf(d, fabsf(x[i]));
        }
        const float inverse = d > 0.0f ? 1.0f/d : 0.0f;
        blocks[b].d = ggml_fp32_to_fp16(d);
        memset(blocks[b].qs, 0, sizeof(blocks[b].qs));
        for (int i = 0; i < QK2_0_G128; ++i) {
            const int code = (int) roundf(x[i]*inverse) + 1;  // 0 .. 2
            blocks[b].qs[i/4] |= (uint8_t) (code << i%4*2);
        }
    }
}
