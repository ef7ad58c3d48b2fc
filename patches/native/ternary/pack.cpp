#include "pack.h"

#include "../i2_s.h"

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

namespace edgellm::ternary {

namespace {

// A panel whose rows are decoded one by one; small enough to stay in the cache.
constexpr int64_t PANELS_PER_TASK = 16;
constexpr int64_t PARALLEL_FROM   = int64_t(1) << 20;  // weights
constexpr unsigned MAX_THREADS    = 8;

// Four fields of two bits a byte, the first of `shift`; `n` bytes give 4 n codes.
void unpack_fields(const uint8_t * bytes, int64_t n, int shift, int step, uint8_t * codes) {
    for (int f = 0; f < 4; ++f, shift += step) {
        for (int64_t i = 0; i < n; ++i) {
            codes[f*n + i] = bytes[i] >> shift & 3;
        }
    }
}

// The trits of `n` bytes: trit k is the integer part of 3 * frac(byte * 3^k / 256).
void unpack_trits(const uint8_t * bytes, int64_t n, int n_trits, uint8_t * codes) {
    uint8_t power = 1;
    for (int k = 0; k < n_trits; ++k, power *= 3) {
        for (int64_t i = 0; i < n; ++i) {
            const uint8_t rest = bytes[i]*power;
            codes[k*n + i] = (uint16_t) rest*3 >> 8;
        }
    }
}

void decode_block(const block_tq2_0 & block, uint8_t * codes) {
    unpack_fields(block.qs, 32, 0, 2, codes);
    unpack_fields(block.qs + 32, 32, 0, 2, codes + 128);
}

void decode_block(const block_tq1_0 & block, uint8_t * codes) {
    static_assert(sizeof(block.qs) == 48 && sizeof(block.qh) == 4, "as ggml-quants.c has it");
    unpack_trits(block.qs, 32, 5, codes);
    unpack_trits(block.qs + 32, 16, 5, codes + 160);
    unpack_trits(block.qh, 4, 4, codes + 240);
}

// Codes of a row; returns whether all blocks have the same scale. A block of zeros, for which ggml stores the scale 0,
// goes with any.
template <typename block_type>
bool decode_blocks(const void * row, int64_t n_columns, uint8_t * codes, float * scale) {
    const block_type * blocks = (const block_type *) row;
    bool same = true;
    *scale = 0.0f;
    for (int64_t b = 0; b < n_columns/QK_K; ++b, codes += QK_K) {
        const float d = ggml_fp16_to_fp32(blocks[b].d);
        if (d == 0.0f) {
            std::fill(codes, codes + QK_K, 1);
            continue;
        }
        decode_block(blocks[b], codes);
        same = same && (*scale == 0.0f || *scale == d);
        *scale = d;
    }
    return same;
}

struct source {
    ggml_type       type;
    const uint8_t * data;
    int64_t         n_rows;
    int64_t         n_columns;

    bool decode_row(int64_t row, uint8_t * codes, float * scale) const {
        const uint8_t * bytes = data + row*(int64_t) ggml_row_size(type, n_columns);
        switch (type) {
            case GGML_TYPE_TQ1_0:
                return decode_blocks<block_tq1_0>(bytes, n_columns, codes, scale);
            case GGML_TYPE_TQ2_0:
                return decode_blocks<block_tq2_0>(bytes, n_columns, codes, scale);
            default:
                for (int64_t i = 0; i < n_columns; i += I2_S_BLOCK_WEIGHTS, bytes += I2_S_BLOCK_BYTES) {
                    unpack_fields(bytes, I2_S_BLOCK_BYTES, 6, -2, codes + i);
                }
                *scale = i2_s_read_scale(data + n_rows*n_columns/4);
                return true;
        }
    }
};

// Row r of a panel: 16 codes become four bytes of a block, bit pair s from codes 4 s .. 4 s + 3.
void pack_row(const uint8_t * codes, int64_t n_columns, int r, uint8_t * panel) {
    for (int64_t b = 0; b < n_columns/BLOCK_COLUMNS; ++b, codes += BLOCK_COLUMNS) {
        uint32_t four[4];
        memcpy(four, codes, sizeof(four));
        const uint32_t packed = four[0] | four[1] << 2 | four[2] << 4 | four[3] << 6;
        memcpy(panel + b*BLOCK_BYTES + 4*r, &packed, sizeof(packed));
    }
}

struct job {
    source    from;
    uint8_t * panels;
    float   * scales;
    int64_t   n_panels;
    std::atomic<int64_t> next{0};
    std::atomic<bool>    exact{true};

    void work() {
        std::vector<uint8_t> codes(from.n_columns);
        for (int64_t first; (first = next.fetch_add(PANELS_PER_TASK)) < n_panels;) {
            for (int64_t p = first; p < std::min(first + PANELS_PER_TASK, n_panels); ++p) {
                pack_panel(p, codes.data());
            }
        }
    }

    void pack_panel(int64_t p, uint8_t * codes) {
        uint8_t * panel = panels + p*from.n_columns*PANEL_ROWS/4;
        for (int r = 0; r < PANEL_ROWS; ++r) {
            const int64_t row   = p*PANEL_ROWS + r;
            float         scale = 0.0f;
            if (row >= from.n_rows) {
                std::fill(codes, codes + from.n_columns, 1);
            } else if (!from.decode_row(row, codes, &scale)) {
                exact = false;
            }
            pack_row(codes, from.n_columns, r, panel);
            scales[row] = scale;
        }
    }
};

unsigned threads_for(int64_t n_weights) {
    return n_weights < PARALLEL_FROM ? 1 : std::clamp(std::thread::hardware_concurrency(), 1u, MAX_THREADS);
}

}  // namespace

bool can_pack(ggml_type type, int64_t n_columns) {
    return (type == GGML_TYPE_I2_S || type == GGML_TYPE_TQ1_0 || type == GGML_TYPE_TQ2_0) &&
           n_columns % COLUMN_MULTIPLE == 0 && n_columns <= MAX_COLUMNS;
}

size_t packed_size(int64_t n_rows, int64_t n_columns) {
    const int64_t rows = (n_rows + PANEL_ROWS - 1)/PANEL_ROWS*PANEL_ROWS;
    return rows*n_columns/4 + rows*sizeof(float);
}

matrix packed_matrix(const void * data, int64_t n_rows, int64_t n_columns) {
    matrix m = { (const uint8_t *) data, nullptr, n_rows, n_columns };
    m.scales = (const float *) (m.panels + m.n_panels()*m.panel_bytes());
    return m;
}

packing pack(ggml_type type, const void * tensor, int64_t n_rows, int64_t n_columns, void * target) {
    const matrix m = packed_matrix(target, n_rows, n_columns);
    float * scales = const_cast<float *>(m.scales);
    job all = { { type, (const uint8_t *) tensor, n_rows, n_columns }, (uint8_t *) target, scales, m.n_panels() };
    std::vector<std::thread> helpers(threads_for(n_rows*n_columns) - 1);
    for (auto & helper : helpers) {
        helper = std::thread([&all] { all.work(); });
    }
    all.work();
    for (auto & helper : helpers) {
        helper.join();
    }
    const float * first = std::find_if(scales, scales + n_rows, [](float scale) { return scale != 0.0f; });
    const bool one_scale = std::all_of(first, (const float *) scales + n_rows, [&](float scale) {
        return scale == *first || scale == 0.0f;
    });
    return { all.exact, one_scale };
}

}  // namespace edgellm::ternary
