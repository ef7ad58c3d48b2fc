#include "kernels.h"

#include "../cpu.h"

#if defined(__x86_64__)
#    include "x86/ladder.h"
#elif defined(__aarch64__)
#    include "arm/ladder.h"
#endif

namespace edgellm::i2_s {

kernels best(unsigned levels) {
    kernels k = { dot_scalar };
#if defined(__x86_64__)
    climb_x86(k, levels);
#elif defined(__aarch64__)
    climb_arm(k, levels);
#endif
    (void) levels;
    return k;
}

const kernels & chosen() {
    static const kernels here = best(cpu::allowed());
    return here;
}

}  // namespace edgellm::i2_s
