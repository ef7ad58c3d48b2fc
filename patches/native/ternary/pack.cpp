#include "pack.h"
#include "k_blocks.h"

#include "../i2_s/layout.h"
#include "../q2_0_g128/block.h"

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
constexpr int64_t ALIGNMENT       = 64;

// Four fields of two bits a byte, the first of `shift`; `n` bytes give 4 n codes.
void unpack_fields(const uint8_t * bytes, int64_t n, int shift, int step, uint8_t * codes) {
    for (int f = 0; f < 4; ++f, shift += step) {
        for (int64_t i = 0; i < n; ++i) {
            codes[f*n + i] = bytes[i] >> shift & 3;
        }
    }
}

// Four fields of two bits a byte, all of one byte before those of the next.
void unpack_pairs_in_order(const uint8_t * bytes, int64_t n, uint8_t * codes) {
    for (int64_t i = 0; i < n; ++i) {
        const uint32_t b = bytes[i], four = (b | b << 6 | b << 12 | b << 18) & 0x03030303;
        memcpy(codes + 4*i, &four, sizeof(four));
    }
}

// Eight bits a byte, in order; set bits are the code 2.
void unpack_bits_in_order(const uint8_t * bytes, int64_t n, uint8_t * codes) {
    for (int64_t i = 0; i < 2*n; ++i) {
        const uint32_t b = bytes[i/2] >> i%2*4 & 15, four = (b | b << 7 | b << 14 | b << 21) & 0x01010101;
        const uint32_t twice = 2*four;
        memcpy(codes + 4*i, &twice, sizeof(twice));
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

// Code i is the low half of byte i, code i + n the high one.
void unpack_halves(const uint8_t * bytes, int64_t n, uint8_t * codes) {
    for (int64_t i = 0; i < n; ++i) {
        codes[i]     = bytes[i] & 15;
        codes[n + i] = bytes[i] >> 4;
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

void decode_block(const block_q2_0 & block, uint8_t * codes) {
    unpack_pairs_in_order(block.qs, sizeof(block.qs), codes);
}

void decode_block(const block_q2_0_g128 & block, uint8_t * codes) {
    unpack_pairs_in_order(block.qs, sizeof(block.qs), codes);
}

void decode_block(const block_q1_0 & block, uint8_t * codes) {
    unpack_bits_in_order(block.qs, sizeof(block.qs), codes);
}

void decode_block(const block_q4_0 & block, uint8_t * codes) {
    unpack_halves(block.qs, sizeof(block.qs), codes);
}

void decode_block(const block_q4_1 & block, uint8_t * codes) {
    unpack_halves(block.qs, sizeof(block.qs), codes);
}

void decode_block(const block_q8_0 & block, uint8_t * codes) {
    for (int i = 0; i < QK8_0; ++i) {
        codes[i] = (uint8_t) (block.qs[i] + 128);
    }
}

// Codes of a row, and a scale and a minimum for each block.
void decode_minima(const void * row, int64_t n_columns, uint8_t * codes, uint16_t * scales) {
    const block_q4_1 * blocks = (const block_q4_1 *) row;
    for (int64_t b = 0; b < n_columns/QK4_1; ++b, codes += QK4_1) {
        decode_block(blocks[b], codes);
        memcpy(scales + 2*b, &blocks[b], 2*sizeof(uint16_t));  // d, then m
    }
}

// Codes and scales of a row, a scale for each block.
template <typename block_type>
void decode_groups(const void * row, int64_t n_columns, int64_t block_columns, uint8_t * codes, uint16_t * scales) {
    const block_type * blocks = (const block_type *) row;
    for (int64_t b = 0; b < n_columns/block_columns; ++b, codes += block_columns) {
        decode_block(blocks[b], codes);
        scales[b] = blocks[b].d;
    }
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

// Whether tensors of a type may have one scale a row. Those of Q2_0 and Q1_0 may too, but their products with group
// scales are closer to upstream's.
bool has_row_scales(ggml_type type) {
    return type == GGML_TYPE_I2_S || type == GGML_TYPE_TQ1_0 || type == GGML_TYPE_TQ2_0;
}

// Whether all scales but zeros are the same.
bool one_value(const float * scales, int64_t n) {
    const float * first = std::find_if(scales, scales + n, [](float scale) { return scale != 0.0f; });
    return std::all_of(first, scales + n, [&](float scale) { return scale == *first || scale == 0.0f; });
}

unsigned threads_for(int64_t n_weights) {
    return n_weights < PARALLEL_FROM ? 1 : std::clamp(std::thread::hardware_concurrency(), 1u, MAX_THREADS);
}

struct source {
    ggml_type       type;
    const uint8_t * data;
    int64_t         n_rows;
    int64_t         n_columns;

    const uint8_t * row(int64_t i) const { return data + i*(int64_t) ggml_row_size(type, n_columns); }

    bool decode_row(int64_t i, uint8_t * codes, float * scale) const {
        const uint8_t * bytes = row(i);
        switch (type) {
            case GGML_TYPE_TQ1_0:
                return decode_blocks<block_tq1_0>(bytes, n_columns, codes, scale);
            case GGML_TYPE_TQ2_0:
                return decode_blocks<block_tq2_0>(bytes, n_columns, codes, scale);
            default:
                for (int64_t c = 0; c < n_columns; c += I2_S_BLOCK_WEIGHTS, bytes += I2_S_BLOCK_BYTES) {
                    unpack_fields(bytes, I2_S_BLOCK_BYTES, 6, -2, codes + c);
                }
                *scale = i2_s_read_scale(data + n_rows*n_columns/4);
                return true;
        }
    }

    void decode_row(int64_t i, uint8_t * codes, uint16_t * scales) const {
        const uint8_t * bytes = row(i);
        switch (type) {
            case GGML_TYPE_TQ1_0:    return decode_groups<block_tq1_0>(bytes, n_columns, QK_K, codes, scales);
            case GGML_TYPE_TQ2_0:    return decode_groups<block_tq2_0>(bytes, n_columns, QK_K, codes, scales);
            case GGML_TYPE_Q2_0:     return decode_groups<block_q2_0>(bytes, n_columns, QK2_0, codes, scales);
            case GGML_TYPE_Q2_0_G128: return decode_groups<block_q2_0_g128>(bytes, n_columns, QK2_0_G128, codes, scales);
            case GGML_TYPE_Q4_0:     return decode_groups<block_q4_0>(bytes, n_columns, QK4_0, codes, scales);
            case GGML_TYPE_Q4_1:     return decode_minima(bytes, n_columns, codes, scales);
            case GGML_TYPE_Q8_0:     return decode_groups<block_q8_0>(bytes, n_columns, QK8_0, codes, scales);
            default:                 return decode_groups<block_q1_0>(bytes, n_columns, QK1_0, codes, scales);
        }
    }
};

// Row r of a panel: 16 codes become four bytes of a block, bit pair s from codes 4 s .. 4 s + 3.
void pack_pairs(const uint8_t * codes, int64_t n_columns, int r, uint8_t * panel) {
    for (int64_t b = 0; b < n_columns/16; ++b, codes += 16) {
        uint32_t four[4];
        memcpy(four, codes, sizeof(four));
        const uint32_t packed = four[0] | four[1] << 2 | four[2] << 4 | four[3] << 6;
        memcpy(panel + b*BLOCK_BYTES + 4*r, &packed, sizeof(packed));
    }
}

// The same with bits: 32 codes, 0 or 2, become four bytes, bit s from codes 4 s .. 4 s + 3.
void pack_bits(const uint8_t * codes, int64_t n_columns, int r, uint8_t * panel) {
    for (int64_t b = 0; b < n_columns/32; ++b, codes += 32) {
        uint32_t four[8], packed = 0;
        memcpy(four, codes, sizeof(four));
        for (int s = 0; s < 8; ++s) {
            packed |= (four[s] >> 1) << s;
        }
        memcpy(panel + b*BLOCK_BYTES + 4*r, &packed, sizeof(packed));
    }
}

// The same with four bits and more: 32 columns are four blocks of low bits, and the high bits as above.
void pack_planes(const uint8_t * codes, int64_t n_columns, int bits, int r, uint8_t * panel) {
    uint8_t high[32];
    for (int64_t c = 0; c < n_columns; c += 32, codes += 32, panel += bits*BLOCK_BYTES) {
        for (int b = 0; b < 4; ++b) {
            uint32_t four[2];
            memcpy(four, codes + 8*b, sizeof(four));
            const uint32_t packed = (four[0] & 0x0f0f0f0f) | (four[1] & 0x0f0f0f0f) << 4;
            memcpy(panel + b*BLOCK_BYTES + 4*r, &packed, sizeof(packed));
        }
        for (int i = 0; bits > 4 && i < 32; ++i) {
            high[i] = bits == 5 ? codes[i] >> 4 << 1 : codes[i] >> 4;
        }
        if (bits > 4) {
            (bits == 5 ? pack_bits : pack_pairs)(high, 32, r, panel + 4*BLOCK_BYTES);
        }
    }
}

// The same with eight: four codes are four bytes.
void pack_bytes(const uint8_t * codes, int64_t n_columns, int r, uint8_t * panel) {
    for (int64_t b = 0; b < n_columns/4; ++b, codes += 4) {
        memcpy(panel + b*BLOCK_BYTES + 4*r, codes, 4);
    }
}

void pack_codes(const uint8_t * codes, const matrix & m, int r, uint8_t * panel) {
    switch (m.packed.bits) {
        case 1:  return pack_bits(codes, m.n_columns, r, panel);
        case 2:  return pack_pairs(codes, m.n_columns, r, panel);
        case 8:  return pack_bytes(codes, m.n_columns, r, panel);
        default: return pack_planes(codes, m.n_columns, m.packed.bits, r, panel);
    }
}

// One way to pack a matrix: with a scale for each row, or with a scale for each group of columns.
struct job {
    source from;
    matrix to;
    std::atomic<int64_t> next{0};
    std::atomic<bool>    exact{true};

    job(const source & from, const matrix & to) : from(from), to(to) {}

    void run() {
        std::vector<std::thread> helpers(threads_for(from.n_rows*from.n_columns) - 1);
        for (auto & helper : helpers) {
            helper = std::thread([this] { work(); });
        }
        work();
        for (auto & helper : helpers) {
            helper.join();
        }
    }

  private:
    void work() {
        std::vector<uint8_t>  codes(from.n_columns);
        std::vector<uint16_t> scales(to.packed.nested ? 0 : to.n_scales());
        for (int64_t first; exact && (first = next.fetch_add(PANELS_PER_TASK)) < to.n_panels();) {
            for (int64_t p = first; p < std::min(first + PANELS_PER_TASK, to.n_panels()); ++p) {
                for (int r = 0; r < PANEL_ROWS; ++r) {
                    if (to.packed.nested) {
                        fill_nested(codes.data(), p, r);
                    } else {
                        fill(codes.data(), scales.data(), p, r);
                    }
                    pack_codes(codes.data(), to, r, (uint8_t *) to.panel(p));
                }
            }
        }
    }

    void fill_nested(uint8_t * codes, int64_t p, int r) {
        switch (from.type) {
            case GGML_TYPE_Q4_K: return fill_nested<block_q4_K, nested_scales>(codes, p, r);
            case GGML_TYPE_Q5_K: return fill_nested<block_q5_K, nested_scales>(codes, p, r);
            default:             return fill_nested<block_q6_K, signed_scales>(codes, p, r);
        }
    }

    template <typename block_type, typename Scales>
    void fill_nested(uint8_t * codes, int64_t p, int r) {
        const int64_t row    = p*PANEL_ROWS + r;
        const auto *  blocks = row < from.n_rows ? (const block_type *) from.row(row) : nullptr;
        decode_nested_row(blocks, to.n_groups(), r, codes, const_cast<Scales *>(to.nested<Scales>(p)));
    }

    void fill(uint8_t * codes, uint16_t * group_scales, int64_t p, int r) {
        const int64_t row   = p*PANEL_ROWS + r;
        float         scale = 0.0f;
        if (row >= from.n_rows) {
            std::fill(codes, codes + from.n_columns, 0);
            std::fill(group_scales, group_scales + to.n_scales(), 0);
        } else if (to.packed != ROW_SCALES) {
            from.decode_row(row, codes, group_scales);
        } else if (!from.decode_row(row, codes, &scale)) {
            exact = false;
        }
        if (to.packed == ROW_SCALES) {
            const_cast<float *>(to.scales)[row] = scale;
        }
        for (int64_t i = 0; i < to.n_scales(); ++i) {
            const_cast<uint16_t *>(to.group_scales(p))[i*PANEL_ROWS + r] = group_scales[i];
        }
    }
};

}  // namespace

format format_of(ggml_type type) {
    switch (type) {
        case GGML_TYPE_I2_S:     return ROW_SCALES;
        case GGML_TYPE_TQ1_0:
        case GGML_TYPE_TQ2_0:    return { 2, QK_K };
        case GGML_TYPE_Q2_0:     return { 2, QK2_0 };
        case GGML_TYPE_Q2_0_G128: return { 2, QK2_0_G128 };
        case GGML_TYPE_Q1_0:     return { 1, QK1_0 };
        case GGML_TYPE_Q4_0:     return { 4, QK4_0 };
        case GGML_TYPE_Q4_1:     return { 4, QK4_1, false, true };
        case GGML_TYPE_Q8_0:     return { 8, QK8_0 };
        case GGML_TYPE_Q4_K:     return { 4, QK_K, true };
        case GGML_TYPE_Q5_K:     return { 5, QK_K, true };
        case GGML_TYPE_Q6_K:     return { 6, QK_K, true };
        default:                 return { 0, 0 };
    }
}

bool can_pack(ggml_type type, int64_t n_columns) {
    return format_of(type).bits != 0 && n_columns % COLUMN_MULTIPLE == 0 && n_columns <= MAX_COLUMNS;
}

size_t packed_size(ggml_type type, int64_t n_rows, int64_t n_columns) {
    const int64_t n_panels = packed_matrix(ROW_SCALES, nullptr, n_rows, n_columns).n_panels();
    const auto    bytes    = [&](const format & packed) {
        const int64_t row_scales = packed == ROW_SCALES ? PANEL_ROWS*sizeof(float) : 0;
        return n_panels*(packed_matrix(packed, nullptr, n_rows, n_columns).panel_bytes() + row_scales);
    };
    const int64_t most = std::max(has_row_scales(type) ? bytes(ROW_SCALES) : 0, bytes(format_of(type)));
    return (most + ALIGNMENT - 1)/ALIGNMENT*ALIGNMENT;
}

matrix packed_matrix(const format & packed, const void * data, int64_t n_rows, int64_t n_columns) {
    matrix m = { (const uint8_t *) data, nullptr, n_rows, n_columns, packed };
    if (packed == ROW_SCALES) {
        m.scales = (const float *) (m.panels + m.n_panels()*m.panel_bytes());
    }
    return m;
}

packing pack(ggml_type type, const void * tensor, int64_t n_rows, int64_t n_columns, void * target) {
    const source from = { type, (const uint8_t *) tensor, n_rows, n_columns };
    if (has_row_scales(type)) {
        job rows(from, packed_matrix(ROW_SCALES, target, n_rows, n_columns));
        rows.run();
        if (rows.exact) {
            return { ROW_SCALES, one_value(rows.to.scales, n_rows) };
        }
    }
    job groups(from, packed_matrix(format_of(type), target, n_rows, n_columns));
    groups.run();
    return { groups.to.packed, false };
}

}  // namespace edgellm::ternary
