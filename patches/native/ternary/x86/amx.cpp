// AMX-int8: TDPBSUD multiplies 16 tokens x 64 columns of activations by 64 columns x 16 rows of codes, in int32.
//
// A tile of activations is 16 tokens x 64 bytes as layout.h has it with group = 64: one kilobyte in a row. A tile of
// codes is four blocks of a panel, unpacked: row 4 b + s holds bit pair s of block b. Codes are unpacked for two panels
// and some columns, small enough for the first-level cache, and meet all tokens of the pass there.
//
// A single token does not fill a tile: it takes the AVX-512 path, whose layout (group = 4) for one token is the same
// bytes as this one's. Between two and 16 tokens the missing ones are zero.

#include "avx512_vnni.h"

namespace edgellm::ternary {

namespace {

constexpr int     TILE          = 16;
constexpr int64_t TILE_COLUMNS  = 64;
constexpr int64_t TILE_BYTES    = 1024;
constexpr int64_t COLUMNS_AT_ONCE = 1024;  // 16 KiB of unpacked codes a panel
constexpr int64_t TILES_AT_ONCE   = TOKENS_AT_ONCE/TILE;

// The 64 bytes that LDTILECFG reads and STTILECFG writes.
struct tile_config {
    uint8_t  palette;
    uint8_t  start_row;
    uint8_t  reserved[14];
    uint16_t row_bytes[16];
    uint8_t  rows[16];
};
static_assert(sizeof(tile_config) == 64, "as the processor reads it");

// Tiles 0-3 are sums (tokens x rows), 4-5 activations, 6-7 codes; all are 16 rows of 64 bytes.
alignas(64) const tile_config CONFIG = {
    1, 0, {}, { 64, 64, 64, 64, 64, 64, 64, 64 }, { 16, 16, 16, 16, 16, 16, 16, 16 },
};

// gcc 12 believes that these two read 8 bytes, and that TILELOADD reads none: hence the first two in our own words, and
// `memory_is_read` wherever something was stored that tiles are loaded from.
#ifndef EDGELLM_AMX_MODEL
inline void load_config(const tile_config & config) {
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
}

inline void store_config(tile_config & config) {
    __asm__ volatile("sttilecfg %0" : "=m"(config));
}
#else
inline void load_config(const tile_config & config) { EDGELLM_TILE_LOAD_CONFIG(&config); }
inline void store_config(tile_config & config) { EDGELLM_TILE_STORE_CONFIG(&config); }
#endif

inline void memory_is_read() {
    __asm__ volatile("" : : : "memory");
}

// ggml's own AMX kernels configure each thread once and rely on it afterwards: what was there is put back.
class configured {
  public:
    configured() {
        store_config(saved_);
        load_config(CONFIG);
    }
    ~configured() {
        if (saved_.palette != 0) {  // 0 is the state after TILERELEASE
            load_config(saved_);
        } else {
            _tile_release();
        }
    }

  private:
    alignas(64) tile_config saved_;
};

void unpack(const uint8_t * block, int64_t n_blocks, uint8_t * rows) {
    const __m512i mask = _mm512_set1_epi8(3);
    for (int64_t b = 0; b < n_blocks; ++b, block += BLOCK_BYTES, rows += 4*BLOCK_BYTES) {
        const __m512i w = _mm512_loadu_si512(block);
        _mm512_store_si512(rows,       _mm512_and_si512(w, mask));
        _mm512_store_si512(rows + 64,  _mm512_and_si512(_mm512_srli_epi16(w, 2), mask));
        _mm512_store_si512(rows + 128, _mm512_and_si512(_mm512_srli_epi16(w, 4), mask));
        _mm512_store_si512(rows + 192, _mm512_and_si512(_mm512_srli_epi16(w, 6), mask));
    }
}

// What a pass of up to 128 tokens over two panels needs; 16 KiB of sums, the codes, and results of segments.
struct workspace {
    alignas(64) int32_t sums[TILES_AT_ONCE][2][TILE][PANEL_ROWS];
    alignas(64) float   totals[TILES_AT_ONCE][2][TILE][PANEL_ROWS];
    alignas(64) uint8_t codes[2][COLUMNS_AT_ONCE*PANEL_ROWS];
};

// sums[i .. i + 1] += activations x codes over n_tiles x 64 columns. `second`: whether there is a second tile of
// tokens.
void add_tiles(workspace & work, int64_t i, bool second, const int8_t * a, const int8_t * b, int64_t n_tiles) {
    int32_t (*c)[2][TILE][PANEL_ROWS] = work.sums + i;
    memory_is_read();
    _tile_loadd(0, c[0][0], 64);
    _tile_loadd(1, c[0][1], 64);
    if (second) {
        _tile_loadd(2, c[1][0], 64);
        _tile_loadd(3, c[1][1], 64);
        for (int64_t k = 0; k < n_tiles; ++k) {
            _tile_loadd(4, a + k*TILE_BYTES, 64);
            _tile_loadd(6, work.codes[0] + k*TILE_BYTES, 64);
            _tile_dpbsud(0, 4, 6);
            _tile_loadd(7, work.codes[1] + k*TILE_BYTES, 64);
            _tile_dpbsud(1, 4, 7);
            _tile_loadd(5, b + k*TILE_BYTES, 64);
            _tile_dpbsud(2, 5, 6);
            _tile_dpbsud(3, 5, 7);
        }
        _tile_stored(2, c[1][0], 64);
        _tile_stored(3, c[1][1], 64);
    } else {
        for (int64_t k = 0; k < n_tiles; ++k) {
            _tile_loadd(4, a + k*TILE_BYTES, 64);
            _tile_loadd(6, work.codes[0] + k*TILE_BYTES, 64);
            _tile_dpbsud(0, 4, 6);
            _tile_loadd(7, work.codes[1] + k*TILE_BYTES, 64);
            _tile_dpbsud(1, 4, 7);
        }
    }
    _tile_stored(0, c[0][0], 64);
    _tile_stored(1, c[0][1], 64);
}

void clear(int32_t (*sums)[2][TILE][PANEL_ROWS], int64_t n_tiles) {
    for (int64_t i = 0; i < n_tiles*2*TILE; ++i) {
        _mm512_store_si512((int32_t *) sums + i*PANEL_ROWS, _mm512_setzero_si512());
    }
}

// One pass: tokens begin .. begin + n - 1 times panels `panel` and `panel` + 1 (the second only if it is there).
void multiply_pass(workspace & work, const matrix & w, const activations & a, int64_t panel, int64_t n_panels,
                   int64_t begin, int64_t n, float * y, int64_t y_stride) {
    const int64_t n_tiles = (n + TILE - 1)/TILE;
    const bool    whole   = a.n_segments == 1;
    const int64_t step    = whole ? COLUMNS_AT_ONCE : SEGMENT_COLUMNS;
    clear(work.sums, n_tiles);
    if (!whole) {
        clear((int32_t (*)[2][TILE][PANEL_ROWS]) work.totals, n_tiles);  // 0.0f is all zero bits
    }
    for (int64_t column = 0; column < a.n_columns; column += step) {
        const int64_t columns = a.n_columns - column < step ? a.n_columns - column : step;
        for (int64_t p = 0; p < 2; ++p) {
            // without a second panel the first one is computed twice and the copy ignored
            const uint8_t * blocks = w.panel(p < n_panels ? panel + p : panel) + column*PANEL_ROWS/4;
            unpack(blocks, columns/BLOCK_COLUMNS, work.codes[p]);
        }
        for (int64_t i = 0; i < n_tiles; i += 2) {
            const int8_t * q = a.q + (begin + i*TILE)*a.n_columns + column*TILE;
            add_tiles(work, i, i + 1 < n_tiles, q, q + TILE*a.n_columns, columns/TILE_COLUMNS);
        }
        if (!whole) {
            for (int64_t t = 0; t < n; ++t) {
                const int64_t at = (begin + t)*a.n_segments + column/SEGMENT_COLUMNS;
                for (int64_t p = 0; p < n_panels; ++p) {
                    add_segment(work.sums[t/TILE][p][t%TILE], a.factors[at], a.offsets[at], work.totals[t/TILE][p][t%TILE]);
                }
            }
            clear(work.sums, n_tiles);
        }
    }
    for (int64_t t = 0; t < n; ++t) {
        for (int64_t p = 0; p < n_panels; ++p) {
            const float * scales = w.scales + (panel + p)*PANEL_ROWS;
            float * total = work.totals[t/TILE][p][t%TILE];
            if (whole) {
                finish_row(work.sums[t/TILE][p][t%TILE], scales, a.factors[begin + t], a.offsets[begin + t], total);
            } else {
                scale_row(scales, total);
            }
            store_row(w, panel + p, total, y + (begin + t)*y_stride);
        }
    }
}

void multiply(const matrix & w, const activations & a, int64_t first, int64_t last, float * y, int64_t y_stride) {
    if (a.n_tokens == 1) {
        multiply_tiles<rows<avx512_dot>::tile, 1, 1>(w, a, first, last, y, y_stride);
        return;
    }
    workspace work;
    const configured tiles;
    for (int64_t begin = 0; begin < a.n_tokens; begin += TOKENS_AT_ONCE) {
        const int64_t n = a.n_tokens - begin < TOKENS_AT_ONCE ? a.n_tokens - begin : TOKENS_AT_ONCE;
        for (int64_t panel = first; panel < last; panel += 2) {
            multiply_pass(work, w, a, panel, last - panel < 2 ? 1 : 2, begin, n, y, y_stride);
        }
    }
}

}  // namespace

const kernels * amx_kernels() {
    static const kernels k = { TILE_COLUMNS, TILE, TILE, absolute_maximum_256, quantize_256, multiply };
    return &k;
}

}  // namespace edgellm::ternary
