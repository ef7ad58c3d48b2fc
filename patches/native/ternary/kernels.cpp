#include "kernels.h"

#include "../cpu.h"

#if defined(__x86_64__)
#    include "x86/ladder.h"
#elif defined(__aarch64__)
#    include "arm/ladder.h"
#endif

namespace edgellm::ternary {

kernel_set best(unsigned levels) {
    kernel_set k = *scalar_kernels();
#if defined(__x86_64__)
    climb_x86(k, levels);
#elif defined(__aarch64__)
    climb_arm(k, levels);
#endif
    (void) levels;
    return k;
}

namespace {

// Without AVX2 upstream's products of four bits and more are better than those in plain C++.
kernel_set best_here() {
    kernel_set k = best(cpu::allowed());
    if (!(cpu::supported() & cpu::AVX2)) {
        k.nibbles = k.minima = k.bytes = k.nested[0] = k.nested[1] = k.nested[2] = {};
    }
    return k;
}

}  // namespace

const kernel_set * chosen() {
    static const kernel_set here = best_here();
    return cpu::stock() ? nullptr : &here;
}

}  // namespace edgellm::ternary
