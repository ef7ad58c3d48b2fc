#include "dot.h"

#include "block.h"

#define GGML_COMMON_DECL_C
#include "ggml-common.h"

#include "ggml.h"

// The order of additions of upstream's ggml_vec_dot_q2_0_q8_0_generic.
void vec_dot_q2_0_g128_q8_0(int n, float * s, size_t bs, const void * x, size_t bx, const void * y, size_t by, int n_rows) {
    const block_q2_0_g128 * weights = (const block_q2_0_g128 *) x;
    const block_q8_0      * q       = (const block_q8_0 *) y;
    float total = 0.0f;
    for (int b = 0; b < n/QK2_0_G128; ++b) {
        float part = 0.0f;
        for (int k = 0; k < QK2_0_G128/QK8_0; ++k, ++q) {
            const uint8_t * codes = weights[b].qs + k*QK8_0/4;
            int sum = 0;
            for (int i = 0; i < QK8_0; ++i) {
                sum += ((codes[i/4] >> i%4*2 & 3) - 1)*q->qs[i];
            }
            part += ggml_fp16_to_fp32(q->d)*(float) sum;
        }
        total += ggml_fp16_to_fp32(weights[b].d)*part;
    }
    *s = total;
    (void) bs, (void) bx, (void) by, (void) n_rows;
}
