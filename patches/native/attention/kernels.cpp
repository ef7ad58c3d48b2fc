#include "kernels.h"

#include "../cpu.h"

#if defined(__x86_64__)
#    include "x86/ladder.h"
#elif defined(__aarch64__)
#    include "arm/ladder.h"
#endif

namespace edgellm::attention {

kernels best(unsigned levels) {
    kernels k = scalar_kernels();
#if defined(__x86_64__)
    climb_x86(k, levels);
#elif defined(__aarch64__)
    climb_arm(k, levels);
#endif
    (void) levels;
    return k;
}

const kernels * chosen() {
    static const kernels here = best(cpu::allowed());
#if defined(__x86_64__)
    static const bool fused = cpu::supported() & cpu::AVX2;
#else
    static const bool fused = true;
#endif
    return fused ? &here : nullptr;
}

}  // namespace edgellm::attention
