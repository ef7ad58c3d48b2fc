#include "kernels.h"

#include "../cpu.h"

#if defined(__x86_64__)
#    include "x86/ladder.h"
#endif

namespace edgellm::few {

kernels best(unsigned levels) {
    kernels k = {};
#if defined(__x86_64__)
    climb_x86(k, levels);
#endif
    (void) levels;
    return k;
}

const kernels & chosen() {
    static const kernels here = cpu::stock() ? kernels{} : best(cpu::allowed());
    return here;
}

}  // namespace edgellm::few
