// ARMv8.2 dot products.

#include "neon_dotprod.h"

namespace edgellm::ternary {

const kernels * neon_dotprod_kernels() {
    static const kernels k = {
        "neon-dotprod", DOTPROD_GROUP, DOTPROD_TILE, 1, absolute_maximum_neon, quantize_neon,
        multiply_tiles<dotprod_dot, DOTPROD_TILE, 1>,
    };
    return &k;
}

}  // namespace edgellm::ternary
