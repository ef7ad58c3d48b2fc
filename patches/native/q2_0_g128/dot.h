// The dot product of a row of Q2_0 with 128 columns a scale, where the kernels of native/ternary are switched off or the
// row is too long for them.
#pragma once

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// As ggml's table of CPU types has it: y is Q8_0, one row, n % 128 == 0.
void vec_dot_q2_0_g128_q8_0(int n, float * s, size_t bs, const void * x, size_t bx, const void * y, size_t by, int n_rows);

#ifdef __cplusplus
}
#endif
