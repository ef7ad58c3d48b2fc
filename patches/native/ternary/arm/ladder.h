// The ternary kernels of ARM, each set better than the ones before.
#pragma once

#include "../../cpu.h"
#include "../kernels.h"

namespace edgellm::ternary {

const kernel_set * neon_dotprod_kernels();
const kernel_set * neon_i8mm_kernels();

inline void climb_arm(kernel_set & k, unsigned levels) {
#if defined(EDGELLM_HAS_NEON_DOTPROD)
    if (levels & cpu::NEON_DOTPROD) { k = *neon_dotprod_kernels(); }
#endif
#if defined(EDGELLM_HAS_NEON_I8MM)
    if (levels & cpu::NEON_I8MM) { k = *neon_i8mm_kernels(); }
#endif
    (void) k, (void) levels;  // for a compiler that is too old for all of them
}

}  // namespace edgellm::ternary
