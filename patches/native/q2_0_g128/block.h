// Q2_0 with 128 columns a scale, as the makers of Ternary-Bonsai write it, under the same id (42) as upstream's Q2_0
// with 64. Inside the engine it is a type of its own, so that sizes, embeddings and products just work; files know it
// by the bytes between the offsets of their tensors.
//
//     block: 128 weights in 34 bytes: the scale d as fp16, then byte p (0..31)
//     bits     1 0 | 3 2     | 5 4     | 7 6
//     weight   4 p | 4 p + 1 | 4 p + 2 | 4 p + 3        weight = (code - 1) d
#pragma once

#include <stdint.h>

#define QK2_0_G128 128

typedef struct {
    uint16_t d;
    uint8_t  qs[QK2_0_G128/4];
} block_q2_0_g128;
