// All that ternary/pack.cpp and i2_s/ need of ggml, so that the checker is built without it.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define GGML_API extern

#ifdef __cplusplus
#    include "half.h"

#    define QK_K 256
#    define QK2_0 64
#    define QK1_0 128
#    define QK4_0 32
#    define QK4_1 32
#    define QK8_0 32

enum ggml_type {
    GGML_TYPE_Q4_0 = 2, GGML_TYPE_Q4_1 = 3, GGML_TYPE_Q8_0 = 8, GGML_TYPE_Q4_K = 12, GGML_TYPE_Q5_K = 13, GGML_TYPE_Q6_K = 14,
    GGML_TYPE_TQ1_0 = 34, GGML_TYPE_TQ2_0 = 35, GGML_TYPE_I2_S = 36, GGML_TYPE_Q2_0_G128 = 37, GGML_TYPE_Q1_0 = 41,
    GGML_TYPE_Q2_0 = 42,
};

struct block_tq1_0 {
    uint8_t  qs[48];
    uint8_t  qh[4];
    uint16_t d;
};

struct block_tq2_0 {
    uint8_t  qs[64];
    uint16_t d;
};

struct block_q2_0 {
    uint16_t d;
    uint8_t  qs[16];
};

struct block_q1_0 {
    uint16_t d;
    uint8_t  qs[16];
};

struct block_q4_K {
    uint16_t d, dmin;
    uint8_t  scales[12];
    uint8_t  qs[128];
};

struct block_q5_K {
    uint16_t d, dmin;
    uint8_t  scales[12];
    uint8_t  qh[32];
    uint8_t  qs[128];
};

struct block_q6_K {
    uint8_t  ql[128];
    uint8_t  qh[64];
    int8_t   scales[16];
    uint16_t d;
};

struct block_q4_0 {
    uint16_t d;
    uint8_t  qs[16];
};

struct block_q4_1 {
    uint16_t d, m;
    uint8_t  qs[16];
};

struct block_q8_0 {
    uint16_t d;
    int8_t   qs[32];
};

static_assert(sizeof(block_tq1_0) == 54 && sizeof(block_tq2_0) == 66, "as files have them");

inline float ggml_fp16_to_fp32(uint16_t half) { return check::half_to_float(half); }

inline size_t ggml_row_size(ggml_type type, int64_t n) {
    switch (type) {
        case GGML_TYPE_Q4_0:      return n/32*18;
        case GGML_TYPE_Q4_1:      return n/32*20;
        case GGML_TYPE_Q8_0:      return n/32*34;
        case GGML_TYPE_Q4_K:      return n/256*144;
        case GGML_TYPE_Q5_K:      return n/256*176;
        case GGML_TYPE_Q6_K:      return n/256*210;
        case GGML_TYPE_TQ1_0:     return n/256*54;
        case GGML_TYPE_TQ2_0:     return n/256*66;
        case GGML_TYPE_Q2_0:      return n/64*18;
        case GGML_TYPE_Q2_0_G128: return n/128*34;
        case GGML_TYPE_Q1_0:      return n/128*18;
        default:                  return n/4;
    }
}
#endif
