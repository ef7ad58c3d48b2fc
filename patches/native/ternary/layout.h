// Ternary weight matrices as they lie in memory, whatever tensor type they came from: R16.
//
// A matrix of n_rows x n_columns codes (code = weight + 1) is cut into panels of 16 rows, the last one padded. A panel
// is n_columns/16 blocks in a row; a block is 16 rows x 16 columns in 64 bytes:
//
//     byte 4 r + j  of a block, row r = 0 .. 15, j = 0 .. 3:
//     bits     1 0 | 3 2   | 5 4   | 7 6
//     column   j   | 4 + j | 8 + j | 12 + j
//
// So bit pair s of the 64 bytes, masked, is 16 rows x 4 consecutive columns of int8: the operand of VPDPBUSD, SDOT and
// their kin against four activations repeated 16 times, and one row of a B tile of AMX. Two bits a weight, and one
// float32 scale for each row behind the panels.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgellm::ternary {

constexpr int64_t PANEL_ROWS    = 16;
constexpr int64_t BLOCK_COLUMNS = 16;
constexpr int64_t BLOCK_BYTES   = 64;
// Columns of a matrix come in multiples of this: every ternary tensor type does, and an AMX tile row needs it.
constexpr int64_t COLUMN_MULTIPLE = 64;
// Activations of models that were not trained with int8 activations are quantised in pieces of so many columns.
constexpr int64_t SEGMENT_COLUMNS = 256;
// How far ahead of the arithmetic weights are asked for where one token makes it wait for memory. They are not asked
// into the outer caches (NTA): nothing reads them again before the next token.
constexpr int64_t PREFETCH_BYTES = 4096;
// A sum of code * q over a row is below 3 * 128 * n_columns, and 64 times that in the kernels which mask codes without
// shifting them: int32 holds it up to here.
constexpr int64_t MAX_COLUMNS = int64_t(1) << 16;

struct matrix {
    const uint8_t * panels;
    const float   * scales;  // one a row, 0 for padding
    int64_t         n_rows;
    int64_t         n_columns;

    int64_t n_panels() const { return (n_rows + PANEL_ROWS - 1)/PANEL_ROWS; }
    int64_t panel_bytes() const { return n_columns*PANEL_ROWS/4; }
    const uint8_t * panel(int64_t i) const { return panels + i*panel_bytes(); }
};

// Quantised activations of n_tokens tokens, cut into tiles of `tile` tokens, the last one perhaps narrower. In a tile
// of w tokens `group` consecutive columns of token 0 are followed by those of token 1, and so on:
//
//     q[column/group][token][column % group]       column < n_columns, token < w
//
// A row is one segment of all columns, or segments of 256; each has a scale s and the sum of its q. `factors` holds s
// itself for the single segment and 1/s for the others, as finish.h uses them.
struct activations {
    const int8_t  * q;
    const float   * factors;  // [token][segment]
    const int32_t * sums;     // [token][segment]
    int64_t         n_tokens;
    int64_t         n_columns;
    int64_t         n_segments;

    int64_t segment_columns() const { return n_segments == 1 ? n_columns : SEGMENT_COLUMNS; }
};

// What activations are multiplied by before they are rounded; NaN, from one among them, stays.
inline float scale_of(float absolute_maximum) {
    return 127.0f/(absolute_maximum < 1e-5f ? 1e-5f : absolute_maximum);
}

// How one instruction set does it. All of them give the same bits.
struct kernels {
    const char * name;
    int          group;    // columns that lie together in a tile of activations
    int          tile;     // tokens of a tile
    int          padding;  // the last tile's width is a multiple of this; tokens that are not there are zero

    // The largest |x|, or NaN if there is one. n % 16 == 0.
    float (*absolute_maximum)(const float * x, int64_t n);

    // q[i] = clamp(round(x[i] * s), -128, 127), round half to even; returns the sum of q. n % 16 == 0.
    int32_t (*quantize)(const float * x, float s, int8_t * q, int64_t n);

    // y[token * y_stride + row] for the rows of panels first .. last - 1 and all tokens.
    void (*multiply)(const matrix & w, const activations & a, int64_t first, int64_t last, float * y, int64_t y_stride);
};

// Compiled only for the machines that can have them, and only to be called where `available` says so.
const kernels * scalar_kernels();
const kernels * avx2_kernels();
const kernels * avx_vnni_kernels();
const kernels * avx512_vnni_kernels();
const kernels * amx_kernels();
const kernels * neon_dotprod_kernels();
const kernels * neon_i8mm_kernels();

}  // namespace edgellm::ternary
