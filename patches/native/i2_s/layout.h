// I2_S, the ternary tensor type of bitnet.cpp (GGUF type id 36): its layout, and back to float.
//
// A tensor of n weights (n % 128 == 0) is n/4 bytes of codes and a tail of 32 bytes:
//
//     | block 0 | block 1 | ... | block n/128 - 1 | scale, float32 LE | 28 bytes, undefined |
//
// A block is 128 consecutive weights of a row in 32 bytes. A code is weight + 1, so 0, 1 or 2; byte p holds
//
//     bits  7 6 | 5 4  | 3 2  | 1 0
//     code  p   | 32+p | 64+p | 96+p        p = 0 .. 31
//
// The one scale of the tensor multiplies. A row alone therefore does not know its scale, and ggml's to_float and
// vec_dot, which see nothing but rows, stay empty for this type: whoever needs them refuses it instead of going wrong.
//
// bitnet.cpp cuts the flattened tensor into blocks, not its rows. The two are the same where rows are a multiple of
// 128; other rows are refused when the file is read, as with every type that has blocks.
#pragma once

#include "ggml.h"

#define I2_S_BLOCK_WEIGHTS 128
#define I2_S_BLOCK_BYTES   32
#define I2_S_TAIL_BYTES    32

#ifdef __cplusplus
extern "C" {
#endif

// The scale in a tail, wherever the tail lies.
GGML_API float i2_s_read_scale(const void * tail);

// y[0 .. n) = scale * weight; n % 128 == 0.
GGML_API void i2_s_dequantize(const void * codes, float scale, float * y, int64_t n);

#ifdef __cplusplus
}
#endif
