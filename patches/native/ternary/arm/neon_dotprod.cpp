// ARMv8.2 dot products.

#include "neon_dotprod.h"

namespace edgellm::ternary {

namespace {

template <template <int> class Tile>
constexpr kernels kernels_for() {
    return { DOTPROD_GROUP, DOTPROD_TILE, 1, absolute_maximum_neon, quantize_neon, multiply_tiles<Tile, DOTPROD_TILE, 1> };
}

}  // namespace

const kernel_set * neon_dotprod_kernels() {
    static const kernel_set k = {
        kernels_for<rows<dotprod_dot>::tile>(),
        kernels_for<groups<dotprod_groups, 2>::tile>(),
        kernels_for<groups<dotprod_groups, 1>::tile>(),
    };
    return &k;
}

}  // namespace edgellm::ternary
