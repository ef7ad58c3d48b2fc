// Blocks of K-quants, as files have them, to codes and nested scales (layout.h).
#pragma once

#include "layout.h"

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"

#include <cstring>

namespace edgellm::ternary {

// Scale and minimum number j of a block: six bits each, of which the last four pairs have two in the bytes of the first.
inline void unpack_scale(const uint8_t * bytes, int j, uint8_t & scale, uint8_t & minimum) {
    if (j < 4) {
        scale   = bytes[j] & 63;
        minimum = bytes[j + 4] & 63;
    } else {
        scale   = (bytes[j + 4] & 15) | bytes[j - 4] >> 6 << 4;
        minimum = bytes[j + 4] >> 4 | bytes[j] >> 6 << 4;
    }
}

// Of each 64 columns the first 32 are low halves of bytes, the others high halves.
inline void unpack_codes(const block_q4_K & block, uint8_t * codes) {
    for (int c = 0; c < QK_K; c += 64) {
        for (int i = 0; i < 32; ++i) {
            codes[c + i]      = block.qs[c/2 + i] & 15;
            codes[c + 32 + i] = block.qs[c/2 + i] >> 4;
        }
    }
}

// The same; the fifth bit of column i is a bit of byte i % 32.
inline void unpack_codes(const block_q5_K & block, uint8_t * codes) {
    for (int c = 0; c < QK_K; c += 64) {
        for (int i = 0; i < 32; ++i) {
            codes[c + i]      = (block.qs[c/2 + i] & 15) | (block.qh[i] >> c/32 & 1) << 4;
            codes[c + 32 + i] = block.qs[c/2 + i] >> 4 | (block.qh[i] >> (c/32 + 1) & 1) << 4;
        }
    }
}

// Of each 128 columns byte i has columns i and i + 64, or i + 32 and i + 96, and a byte of high bits all four.
inline void unpack_codes(const block_q6_K & block, uint8_t * codes) {
    for (int half = 0; half < 2; ++half, codes += 128) {
        const uint8_t * low = block.ql + 64*half, * high = block.qh + 32*half;
        for (int i = 0; i < 32; ++i) {
            codes[i]      = (low[i] & 15) | (high[i] & 3) << 4;
            codes[32 + i] = (low[32 + i] & 15) | (high[i] >> 2 & 3) << 4;
            codes[64 + i] = low[i] >> 4 | (high[i] >> 4 & 3) << 4;
            codes[96 + i] = low[32 + i] >> 4 | (high[i] >> 6) << 4;
        }
    }
}

// The scales of row r.
template <typename block_type>
inline void unpack_scales(const block_type & block, int r, nested_scales & to) {
    memcpy(&to.d[r], &block, sizeof(uint16_t));  // d, then dmin
    memcpy(&to.d_minima[r], (const uint8_t *) &block + sizeof(uint16_t), sizeof(uint16_t));
    for (int j = 0; j < 8; ++j) {
        unpack_scale(block.scales, j, to.scales[j][r], to.minima[j/2][r][j%2]);
    }
}

inline void unpack_scales(const block_q6_K & block, int r, signed_scales & to) {
    to.d[r] = block.d;
    for (int j = 0; j < 16; ++j) {
        to.scales[j][r] = block.scales[j];
    }
}

// Row r of a panel, from its blocks; without blocks a row of zeros.
template <typename block_type, typename Scales>
inline void decode_nested_row(const block_type * blocks, int64_t n_groups, int r, uint8_t * codes, Scales * scales) {
    constexpr block_type NOTHING = {};
    for (int64_t g = 0; g < n_groups; ++g) {
        const block_type & block = blocks != nullptr ? blocks[g] : NOTHING;
        unpack_codes(block, codes + g*QK_K);
        unpack_scales(block, r, scales[g]);
    }
}

}  // namespace edgellm::ternary
