// The I2_S kernels of ARM.
#pragma once

#include "../../cpu.h"
#include "../kernels.h"

namespace edgellm::i2_s {

int32_t dot_neon_dotprod(const uint8_t * row, const int8_t * q, int64_t n);

inline void climb_arm(kernels & k, unsigned levels) {
#if defined(EDGELLM_HAS_NEON_DOTPROD)
    if (levels & cpu::NEON_DOTPROD) { k.dot = dot_neon_dotprod; }
#endif
    (void) k, (void) levels;  // for a compiler that is too old for all of them
}

}  // namespace edgellm::i2_s
