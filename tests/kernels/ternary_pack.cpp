// Packing: the bytes of every type with a scale for each block, or for each row, to panels, against the description of each layout.

#include "check.h"
#include "half.h"

#include "ternary.h"

#include "ternary/pack.h"

#include <algorithm>
#include <cstring>

namespace check {

namespace {

using namespace edgellm::ternary;

// How the scales of a tensor differ.
enum class scales { ONE, BY_ROW, BY_BLOCK, SOME_ZERO };

constexpr const char * NAMES[] = { "one scale", "a scale a row", "a scale a block", "some blocks of zeros" };
constexpr ggml_type TYPES[] = { GGML_TYPE_TQ1_0, GGML_TYPE_TQ2_0, GGML_TYPE_Q2_0, GGML_TYPE_Q2_0_G128, GGML_TYPE_Q1_0,
                               GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q8_0 };
constexpr uint16_t HALF[] = { 0x3c00, 0x3400, 0x2e66 };

struct tensor {
    ggml_type       type;
    int64_t         n_rows, n_columns;
    scales          kind;
    buffer<uint8_t> codes;   // [rows][columns]
    int64_t         block;   // columns that share a scale in the file
    buffer<uint16_t> halfs;  // [rows][columns/block], or two for each block: scale, minimum
    buffer<uint8_t> bytes;

    tensor(ggml_type type, int64_t rows, int64_t columns, scales kind, int code)
        : type(type), n_rows(rows), n_columns(columns), kind(kind), codes(rows*columns), block(block_of(type)),
          halfs(rows*columns/block*n_halfs() + 1),
          bytes(rows*(int64_t) ggml_row_size(type, columns) + (type == GGML_TYPE_I2_S ? 32 : 0)) {
        random numbers((uint32_t) (rows*columns));
        for (auto & c : codes) {
            c = (uint8_t) (code >= 0 ? code : type == GGML_TYPE_Q1_0 ? numbers.next()%2*2 : is_four() ? numbers.next()%16
                           : type == GGML_TYPE_Q8_0 ? numbers.next()%256 : numbers.next()%3);
        }
        if (type == GGML_TYPE_I2_S) {
            write_i2_s();
            return;
        }
        for (int64_t b = 0; b < rows*columns/block; ++b) {
            const int64_t row = b/(columns/block);
            uint16_t & half = halfs[b*n_halfs()];
            half = kind == scales::ONE ? HALF[0] : kind == scales::BY_ROW ? HALF[row%3] : kind == scales::BY_BLOCK
                ? HALF[b%3] : b%3 == 1 ? 0 : HALF[0];
            if (n_halfs() == 2) { halfs[2*b + 1] = HALF[b%2]; }
            write_block(&codes[block*b], &half, bytes.data() + b*(int64_t) ggml_row_size(type, block));
        }
    }

    static int64_t block_of(ggml_type type) {
        return type <= GGML_TYPE_Q8_0 ? 32 : type == GGML_TYPE_Q2_0 ? 64 : type == GGML_TYPE_Q1_0 || type == GGML_TYPE_Q2_0_G128 ? 128 : 256;
    }
    bool is_four() const { return type == GGML_TYPE_Q4_0 || type == GGML_TYPE_Q4_1; }
    int  n_halfs() const { return type == GGML_TYPE_Q4_1 ? 2 : 1; }  // of a block
    bool may_have_row_scales() const { return type <= GGML_TYPE_I2_S && type > GGML_TYPE_Q8_0; }

    void write_i2_s() {
        for (int64_t i = 0; i < codes.size(); ++i) {
            bytes[i/128*32 + i%32] |= (uint8_t) (codes[i] << (6 - i%128/32*2));
        }
        const float scale = 0.37f;
        memcpy(bytes.data() + codes.size()/4, &scale, sizeof(scale));
    }

    void write_block(const uint8_t * c, const uint16_t * scale, uint8_t * to) const {
        const uint16_t d = *scale;
        if (type <= GGML_TYPE_Q8_0) {
            memcpy(to, scale, 2*n_halfs());
            for (int i = 0; i < 32; ++i) {
                if (is_four()) { to[2*n_halfs() + i%16] |= (uint8_t) (c[i] << i/16*4); } else { to[2 + i] = (uint8_t) (c[i] - 128); }
            }
            return;
        }
        if (!may_have_row_scales()) {
            memcpy(to, &d, sizeof(d));
            for (int i = 0; i < block; ++i) {
                to[2 + (type == GGML_TYPE_Q1_0 ? i/8 : i/4)] |= (uint8_t) (type == GGML_TYPE_Q1_0 ? c[i]/2 << i%8 : c[i] << 2*(i%4));
            }
            return;
        }
        if (type == GGML_TYPE_TQ2_0) {
            for (int i = 0; i < 256; ++i) { to[i/128*32 + i%32] |= (uint8_t) (c[i] << i%128/32*2); }
            memcpy(to + 64, &d, sizeof(d));
            return;
        }
        // five trits a byte, the first the most significant, as a fraction of 256 that is rounded up; the last four
        // bytes have four
        const auto write = [&](int at, int n, int first, int n_trits) {
            for (int p = 0; p < n; ++p) {
                int value = 0;
                for (int k = 0; k < 5; ++k) { value = 3*value + (k < n_trits ? c[first + k*n + p] : 0); }
                to[at + p] = (uint8_t) ((value*256 + 242)/243);
            }
        };
        write(0, 32, 0, 5);
        write(32, 16, 160, 5);
        write(48, 4, 240, 4);
        memcpy(to + 52, &d, sizeof(d));
    }

    float row_scale(int64_t row) const {
        if (type == GGML_TYPE_I2_S) { return 0.37f; }
        float found = 0.0f;
        for (int64_t b = 0; b < n_columns/block; ++b) {
            const float d = half_to_float(halfs[row*(n_columns/block) + b]);  // of a type with one half a block
            found = d != 0.0f ? d : found;
        }
        return found;
    }

    format expected() const {
        if (!may_have_row_scales()) {
            return { is_four() ? 4 : type == GGML_TYPE_Q8_0 ? 8 : type == GGML_TYPE_Q1_0 ? 1 : 2, block, false, n_halfs() == 2 };
        }
        const bool one_a_row = kind != scales::BY_BLOCK || n_columns == block || type == GGML_TYPE_I2_S;
        return one_a_row ? ROW_SCALES : format{ 2, block };
    }

    // ggml stores the scale 0 for a block of zeros, whatever its codes.
    int code(int64_t row, int64_t column) const {
        const bool zeros = type != GGML_TYPE_I2_S && halfs[(row*n_columns + column)/block] == 0;
        return zeros ? 1 : codes[row*n_columns + column];
    }

    bool row_is_right(const matrix & m, int64_t row) const {
        const uint8_t  * panel = m.panel(row/16);
        const uint16_t * found = m.group_scales(row/16);
        const bool by_row = m.packed == ROW_SCALES, there = row < n_rows;
        for (int64_t c = 0; c < n_columns; ++c) {
            const int     at = (int) (row%16*4 + c%4), bits = m.packed.bits;
            const int64_t fields = 8/bits;
            const int     field = panel[c/(4*fields)*64 + at] >> c/4%fields*bits & ((1 << bits) - 1);
            if ((bits == 1 ? 2*field : field) != (!there ? 0 : by_row ? code(row, c) : codes[row*n_columns + c])) { return false; }
        }
        for (int64_t i = 0; i < m.n_scales(); ++i) {
            if (found[i*16 + row%16] != (there ? halfs[row*m.n_scales() + i] : 0)) { return false; }
        }
        return !by_row || m.scales[row] == (there ? row_scale(row) : 0.0f);
    }

    void check(report & r) const {
        buffer<uint8_t> target((int64_t) packed_size(type, n_rows, n_columns), 0xaa);
        const packing found = edgellm::ternary::pack(type, bytes.data(), n_rows, n_columns, target.data());
        const matrix  m     = packed_matrix(found.packed, target.data(), n_rows, n_columns);
        bool right = found.packed == expected();
        for (int64_t row = 0; right && row < m.n_panels()*PANEL_ROWS; ++row) { right = row_is_right(m, row); }
        if (found.packed == ROW_SCALES) {
            const bool one = kind == scales::ONE || kind == scales::SOME_ZERO || type == GGML_TYPE_I2_S || n_rows == 1;
            right = right && found.one_scale == one;
        }
        r.expect(right, "type %d, %lld rows x %lld columns, %s", (int) type, (long long) n_rows, (long long) n_columns,
                 NAMES[(int) kind]);
    }
};

}  // namespace

void pack(report & r) {
    if (!r.begin("ternary pack", edgellm::ternary::pack)) {
        return;
    }
    for (int64_t rows : { 1, 2, 16, 17, 50 }) {
        for (int code : { -1, 0, 1, 2 }) {
            for (int64_t columns : { 128, 384 }) { tensor(GGML_TYPE_I2_S, rows, columns, scales::ONE, code).check(r); }
            for (ggml_type type : TYPES) {
                const int stored = type == GGML_TYPE_Q1_0 && code > 0 ? 2 : code;
                for (scales kind : { scales::ONE, scales::BY_ROW, scales::BY_BLOCK, scales::SOME_ZERO }) {
                    for (int64_t columns : { 256, 512, 1536 }) { tensor(type, rows, columns, kind, stored).check(r); }
                }
            }
        }
        tensor(GGML_TYPE_Q2_0, rows, 64, scales::BY_BLOCK, 3).check(r);
        tensor(GGML_TYPE_Q2_0, rows, 320, scales::BY_BLOCK, -1).check(r);
        tensor(GGML_TYPE_Q2_0_G128, rows, 384, scales::BY_BLOCK, 3).check(r);
        tensor(GGML_TYPE_Q1_0, rows, 384, scales::BY_BLOCK, -1).check(r);
        tensor(GGML_TYPE_Q4_0, rows, 320, scales::BY_BLOCK, 15).check(r);
        tensor(GGML_TYPE_Q4_1, rows, 320, scales::BY_BLOCK, 15).check(r);
        tensor(GGML_TYPE_Q8_0, rows, 320, scales::BY_BLOCK, 255).check(r);
    }
    // large enough for several threads
    for (ggml_type type : TYPES) {
        for (scales kind : { scales::ONE, scales::BY_BLOCK }) { tensor(type, 1030, 1024, kind, -1).check(r); }
    }
    r.end();
}

}  // namespace check
