// Dot products of I2_S codes with int8 activations, exact in int32 at every level.
//
// Bounds. A code is at most 3 (a damaged file; sound ones stop at 2) and |q| at most 128, so a sum stays within 384 n:
// int32 holds it up to MAX_COLUMNS.
#pragma once

#include <cstdint>

namespace edgellm::i2_s {

constexpr int64_t MAX_COLUMNS = int64_t(1) << 22;

struct kernels {
    // The sum over n of code * q, code in 0 .. 3; n % 128 == 0, n <= MAX_COLUMNS.
    int32_t (*dot)(const uint8_t * row, const int8_t * q, int64_t n);
};

int32_t dot_scalar(const uint8_t * row, const int8_t * q, int64_t n);

// The best kernels within these levels (cpu.h).
kernels best(unsigned levels);

// The kernels in use. Upstream has none for this type, so `stock` also means the best ones.
const kernels & chosen();

}  // namespace edgellm::i2_s
