// Which kernels run here.
#pragma once

#include "layout.h"

namespace edgellm::ternary {

// The best kernels of this machine, or those that EDGELLM_KERNELS names: scalar, avx2, avx-vnni, avx512-vnni, amx,
// neon-dotprod, neon-i8mm. Null where it says `stock`: the types then take upstream's ways.
const kernels * chosen();

}  // namespace edgellm::ternary
