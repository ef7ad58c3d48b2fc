// The ternary kernels of x86, each set better than the ones before.
#pragma once

#include "../../cpu.h"
#include "../kernels.h"

namespace edgellm::ternary {

const kernel_set * avx2_kernels();
const kernel_set * avx_vnni_kernels();
const kernel_set * avx512_vnni_kernels();
const kernels * amx_kernels();  // with a scale a row; the others stay as AVX-512 VNNI has them

inline void climb_x86(kernel_set & k, unsigned levels) {
#if defined(EDGELLM_HAS_AVX2)
    if (levels & cpu::AVX2) { k = *avx2_kernels(); }
#endif
#if defined(EDGELLM_HAS_AVX_VNNI)
    if (levels & cpu::AVX_VNNI) { k = *avx_vnni_kernels(); }
#endif
#if defined(EDGELLM_HAS_AVX512_VNNI)
    if (levels & cpu::AVX512_VNNI) { k = *avx512_vnni_kernels(); }
#endif
#if defined(EDGELLM_HAS_AMX)
    if (levels & cpu::AMX) { k.rows = *amx_kernels(); }
#endif
    (void) k, (void) levels;  // for a compiler that is too old for all of them
}

}  // namespace edgellm::ternary
