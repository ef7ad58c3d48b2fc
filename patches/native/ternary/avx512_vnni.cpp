// AVX-512 VNNI: one 64-byte block is one vector; VPDPBUSD adds four products to each of 16 int32 lanes, one a row.

#include "avx512_vnni.h"

namespace edgellm::ternary {

const kernels * avx512_vnni_kernels() {
    static const kernels k = {
        "avx512-vnni", 4, AVX512_TILE, 1, absolute_maximum_256, quantize_256, multiply_tiles<avx512_dot, AVX512_TILE, 1>,
    };
    return &k;
}

}  // namespace edgellm::ternary
