// The kernels of x86 for a few tokens.
#pragma once

#include "../../cpu.h"
#include "../kernels.h"

namespace edgellm::few {

void q4_0_avx512_vnni(const void * weights, int64_t n_cols, int64_t first, int64_t last, const void * tokens,
                      int n_tokens, float * y, int64_t y_stride);
void q4_1_avx512_vnni(const void * weights, int64_t n_cols, int64_t first, int64_t last, const void * tokens,
                      int n_tokens, float * y, int64_t y_stride);
void q8_0_avx512_vnni(const void * weights, int64_t n_cols, int64_t first, int64_t last, const void * tokens,
                      int n_tokens, float * y, int64_t y_stride);
void q6_k_avx512_vnni(const void * weights, int64_t n_cols, int64_t first, int64_t last, const void * tokens,
                      int n_tokens, float * y, int64_t y_stride);

inline void climb_x86(kernels & k, unsigned levels) {
#if defined(EDGELLM_HAS_AVX512_VNNI)
    if (levels & cpu::AVX512_VNNI) { k = { q4_0_avx512_vnni, q4_1_avx512_vnni, q8_0_avx512_vnni, q6_k_avx512_vnni }; }
#endif
    (void) k, (void) levels;  // for a compiler that is too old for all of them
}

}  // namespace edgellm::few
