// The I2_S kernels of x86.
#pragma once

#include "../../cpu.h"
#include "../kernels.h"

namespace edgellm::i2_s {

int32_t dot_avx2(const uint8_t * row, const int8_t * q, int64_t n);
int32_t dot_avx512_vnni(const uint8_t * row, const int8_t * q, int64_t n);

inline void climb_x86(kernels & k, unsigned levels) {
#if defined(EDGELLM_HAS_AVX2)
    if (levels & cpu::AVX2) { k.dot = dot_avx2; }
#endif
#if defined(EDGELLM_HAS_AVX512_VNNI)
    if (levels & cpu::AVX512_VNNI) { k.dot = dot_avx512_vnni; }
#endif
    (void) k, (void) levels;  // for a compiler that is too old for all of them
}

}  // namespace edgellm::i2_s
