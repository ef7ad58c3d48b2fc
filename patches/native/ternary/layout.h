// Ternary and other quantised weight matrices and activations as they lie in memory, whatever tensor type they came from: R16.
//
// A matrix of n_rows x n_columns codes (code = weight + 1) is cut into panels of 16 rows, the last one padded. A panel
// is n_columns/16 blocks in a row; a block is 16 rows x 16 columns in 64 bytes:
//
//     byte 4 r + j  of a block, row r = 0 .. 15, j = 0 .. 3:
//     bits     1 0 | 3 2   | 5 4   | 7 6
//     column   j   | 4 + j | 8 + j | 12 + j
//
// So bit pair s of the 64 bytes, masked, is 16 rows x 4 consecutive columns of int8: the operand of VPDPBUSD, SDOT and
// their kin against four activations repeated 16 times, and one row of a B tile of AMX.
//
// Weights that are only -1 or +1 are the codes 0 and 2. One bit tells them apart, and a block is 16 rows x 32 columns:
//
//     byte 4 r + j  of a block:  bit s  of column 4 s + j, s = 0 .. 7
//
// Weights of four bits are the codes 0 .. 15 (code = weight + 8), and a block is 16 rows x 8 columns:
//
//     byte 4 r + j  of a block:  bits 3 .. 0 of column j, bits 7 .. 4 of column 4 + j
//
// Weights of eight bits are the codes 0 .. 255 (code = weight + 128), and a block is 16 rows x 4 columns, a byte each.
//
// Codes of five or six bits lie in two planes: for every 32 columns four such blocks with the low bits, then a block of
// one bit a code or two blocks of two bits with the high ones.
//
// Scales lie where the kernels need them. Either each row has one: float32, behind all panels. Or each row has one for
// every group of 32 to 256 columns: fp16, behind the blocks of their panel,
//
//     scale[group][row]    group < n_columns/group_columns, row = 0 .. 15
//
// with the rows' minima behind the scales of each group where codes have none for 0: weight = scale * code + minimum.
// Or its scales are nested: `nested_scales`, one for every group of 256 columns, in the same place.
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
// The same for matrices with group scales, as upstream has it for their types.
constexpr int64_t GROUP_SEGMENT_COLUMNS = 32;
// Columns of an offset of activations, for nested_scales and for signed_scales.
constexpr int64_t PAIR_COLUMNS   = 64;
constexpr int64_t SIGNED_COLUMNS = 16;
// How far ahead weights are prefetched for a single token, which waits for memory. Into all caches, although nothing reads
// them again before the next token: past the outer ones (NTA) they come later on an Intel Xeon.
constexpr int64_t PREFETCH_BYTES = 4096;
// A sum of code * q over a row is below 3 * 128 * n_columns, and 64 times that in the kernels which mask codes without
// shifting them: int32 holds it up to here.
constexpr int64_t MAX_COLUMNS = int64_t(1) << 16;

// How a matrix is packed.
struct format {
    int     bits;           // a code: 1, 2, 4, 5, 6 or 8
    int64_t group_columns;  // columns of a row that share a scale; 0: all of them
    bool    nested = false;
    bool    minima = false;  // a group has one beside its scale

    bool operator==(const format & other) const {
        return bits == other.bits && group_columns == other.group_columns && nested == other.nested &&
               minima == other.minima;
    }
    bool operator!=(const format & other) const { return !(*this == other); }
};

constexpr format ROW_SCALES = { 2, 0 };

// Scales of 16 rows x 256 columns whose codes have no code for 0: weight = d * scale * code - d_minima * minimum.
struct nested_scales {
    uint16_t d[PANEL_ROWS], d_minima[PANEL_ROWS];  // fp16
    uint8_t  scales[8][PANEL_ROWS];                // [32 columns][row]
    uint8_t  minima[4][PANEL_ROWS][2];             // [64 columns][row][32 columns]: pairs, as VPDPWSSD takes them
};

// The same for six bits, whose codes have one for 0: weight = d * scale * (code - 32).
struct signed_scales {
    uint16_t d[PANEL_ROWS], unused[PANEL_ROWS];
    int8_t   scales[16][PANEL_ROWS];  // [16 columns][row]
};
static_assert(sizeof(nested_scales) == 320 && sizeof(signed_scales) == 320, "whole cache lines");

struct matrix {
    const uint8_t * panels;
    const float   * scales;  // of ROW_SCALES: one a row, 0 for padding
    int64_t         n_rows;
    int64_t         n_columns;
    format          packed = ROW_SCALES;

    int64_t n_panels() const { return (n_rows + PANEL_ROWS - 1)/PANEL_ROWS; }
    int64_t n_groups() const { return packed.group_columns == 0 ? 0 : n_columns/packed.group_columns; }
    int64_t code_bytes() const { return n_columns*PANEL_ROWS*packed.bits/8; }  // of a panel
    // Numbers of a row that are scales or minima.
    int64_t n_scales() const { return packed.minima ? 2*n_groups() : n_groups(); }
    // Of a panel and a group.
    int64_t scale_bytes() const {
        return packed.nested ? sizeof(nested_scales) : (packed.minima ? 2 : 1)*PANEL_ROWS*sizeof(uint16_t);
    }
    int64_t panel_bytes() const { return code_bytes() + n_groups()*scale_bytes(); }
    const uint8_t  * panel(int64_t i) const { return panels + i*panel_bytes(); }
    const uint16_t * group_scales(int64_t i) const { return (const uint16_t *) (panel(i) + code_bytes()); }
    template <typename Scales>
    const Scales * nested(int64_t i) const { return (const Scales *) (panel(i) + code_bytes()); }

    // Rows first .. first + n - 1 as a matrix; a panel begins with the first one.
    matrix slice(int64_t first, int64_t n) const {
        return { panel(first/PANEL_ROWS), scales == nullptr ? nullptr : scales + first, n, n_columns, packed };
    }
};

// Quantised activations of n_tokens tokens, cut into tiles of `tile` tokens, the last one perhaps narrower. In a tile
// of w tokens `interleave` consecutive columns of token 0 are followed by those of token 1, and so on:
//
//     q[column/interleave][token][column % interleave]       column < n_columns, token < w
//
// A row is one segment of all columns, or segments of 32 or 256; each has a scale s. `factors` holds s itself
// for the single segment and 1/s for the others, as finish.h uses them. `offsets` holds minus the sums of q, which turn
// sums of code * q into sums of weight * q: times 8 or 128 where that is the code of the weight 0.
// For nested_scales an offset is two sums of 32 q instead, as int16, the first one in the low half; for signed_scales
// it is -32 times a sum of 16 q. Tokens that only fill up the last tile are all zeros.
struct activations {
    const int8_t  * q;
    const float   * factors;  // [token][segment]
    const int32_t * offsets;  // [token][segment], or [token][column/64] or [token][column/16] for nested scales
    int64_t         n_tokens;
    int64_t         n_columns;
    int64_t         n_segments;

    int64_t segment_columns() const { return n_columns/n_segments; }
};

}  // namespace edgellm::ternary
