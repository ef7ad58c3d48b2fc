// The ternary kernels of one level, and which ones run here.
#pragma once

#include "layout.h"

namespace edgellm::ternary {

// What activations are multiplied by before they are rounded; NaN, from one among them, stays.
inline float scale_of(float absolute_maximum) {
    return 127.0f/(absolute_maximum < 1e-5f ? 1e-5f : absolute_maximum);
}

// The functions of one level for one kind of matrices, and the layout of activations that they expect. All levels give
// the same bits as scalar.cpp.
struct kernels {
    int interleave;  // columns of a token that lie together in a tile of activations
    int tile;        // tokens of a tile
    int padding;     // the last tile's width is a multiple of this; tokens that are not there are zero

    // The largest |x|, or NaN if there is one. n % 16 == 0.
    float (*absolute_maximum)(const float * x, int64_t n);

    // q[i] = clamp(round(x[i] * s), -128, 127), round half to even; returns the sum of q. n % 16 == 0.
    int32_t (*quantize)(const float * x, float s, int8_t * q, int64_t n);

    // y[token * y_stride + row] for the rows of panels first .. last - 1 and all tokens.
    void (*multiply)(const matrix & w, const activations & a, int64_t first, int64_t last, float * y, int64_t y_stride);

    int     zero = 1;            // the code of the weight 0, by which offsets are multiplied; 0: none, they are pairs
    int64_t offset_columns = 0;  // columns of an offset of activations; 0: those of a segment
};

// The kernels of one level.
struct kernel_set {
    kernels rows;    // two bits, a scale a row
    kernels groups;  // two bits, a scale for each row and group of columns
    kernels bits;    // one bit, likewise
    // None without AVX2, where upstream's are used:
    kernels nibbles   = {};  // four bits, likewise
    kernels nested[3] = {};  // four, five and six bits, nested scales
    kernels minima    = {};  // four bits, a scale and a minimum for each row and group
    kernels bytes     = {};  // eight bits

    const kernels & operator[](const format & packed) const {
        if (packed.nested) {
            return nested[packed.bits - 4];
        }
        if (packed.minima || packed.bits == 8) {
            return packed.minima ? minima : bytes;
        }
        return packed.group_columns == 0 ? rows : packed.bits == 1 ? bits : packed.bits == 2 ? groups : nibbles;
    }
};

const kernel_set * scalar_kernels();

// The best kernels within these levels (cpu.h).
kernel_set best(unsigned levels);

// The kernels in use; null if EDGELLM_KERNELS is `stock`: upstream then computes these products.
const kernel_set * chosen();

}  // namespace edgellm::ternary
