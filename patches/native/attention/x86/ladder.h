// The kernels of x86 for attention.
#pragma once

#include "../../cpu.h"
#include "../kernels.h"

namespace edgellm::attention {

kernels avx2_kernels();
kernels avx512_kernels();

inline void climb_x86(kernels & k, unsigned levels) {
#if defined(EDGELLM_HAS_AVX2)
    if (levels & cpu::AVX2) { k = avx2_kernels(); }
#endif
#if defined(EDGELLM_HAS_AVX512)
    if (levels & cpu::AVX512) { k = avx512_kernels(); }
#endif
    (void) k, (void) levels;  // for a compiler that is too old for all of them
}

}  // namespace edgellm::attention
