// The kernels of ARM for attention.
#pragma once

#include "../../cpu.h"
#include "../kernels.h"

namespace edgellm::attention {

kernels neon_kernels();

inline void climb_arm(kernels & k, unsigned levels) {
#if defined(EDGELLM_HAS_NEON_DOTPROD)
    if (levels & cpu::NEON_DOTPROD) { k = neon_kernels(); }
#endif
    (void) k, (void) levels;  // for a compiler that is too old for all of them
}

}  // namespace edgellm::attention
