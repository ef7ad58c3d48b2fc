// Q2_0 with 128 columns a scale, to float and back, as ggml's tables of types have it.
#pragma once

#include "block.h"

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

// n % 128 == 0.
GGML_API void dequantize_row_q2_0_g128(const block_q2_0_g128 * blocks, float * y, int64_t n);

// The arithmetic of upstream's quantize_row_q2_0_ref: the largest |x| of a block is its scale.
GGML_API void quantize_row_q2_0_g128(const float * x, block_q2_0_g128 * blocks, int64_t n);

#ifdef __cplusplus
}
#endif
