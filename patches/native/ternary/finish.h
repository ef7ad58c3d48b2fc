// From exact integer sums to results, and the loop over tiles that all kernels but AMX share.
//
// Every kernel file includes this and compiles it for its own instruction set, so the linker must not merge anything
// defined here: no std::, everything in an unnamed namespace.
//
//     one segment:    y = (sum - sum_q) * scale / s                         the arithmetic of i2_s/matmul.cpp
//     more segments:  y = scale * ((sum_0 - sum_q_0)/s_0 + (sum_1 - sum_q_1)/s_1 + ...)    fused, in this order
//
// Matrices with group scales: groups.h.
#pragma once

#include "kernels.h"

namespace edgellm::ternary {

namespace {

inline void finish_row(const int32_t * sums, const float * scales, float s, int32_t offset, float * y) {
    for (int r = 0; r < PANEL_ROWS; ++r) {
        y[r] = (float) (sums[r] + offset) * scales[r] / s;
    }
}

inline void add_segment(const int32_t * sums, float inverse, int32_t offset, float * total) {
    for (int r = 0; r < PANEL_ROWS; ++r) {
        total[r] = __builtin_fmaf((float) (sums[r] + offset), inverse, total[r]);
    }
}

inline void clear_row(float * total) {
    for (int r = 0; r < PANEL_ROWS; ++r) {
        total[r] = 0.0f;
    }
}

inline void scale_row(const float * scales, float * total) {
    for (int r = 0; r < PANEL_ROWS; ++r) {
        total[r] *= scales[r];
    }
}

// The results of one panel and one token; the last panel may be padded.
inline void store_row(const matrix & w, int64_t panel, const float * values, float * y) {
    const int64_t row    = panel*PANEL_ROWS;
    const int64_t n_rows = w.n_rows - row < PANEL_ROWS ? w.n_rows - row : PANEL_ROWS;
    for (int64_t r = 0; r < n_rows; ++r) {
        y[row + r] = values[r];
    }
}

// The rows of one panel, or of two at once, times the N tokens of one tile.
//
// `Dot<N>::run(blocks, next, n_blocks, q, sums)` computes sums[panel*N + token][16] of codes times activations for
// Dot<N>::PANELS panels, the second one `next` bytes behind the first.
template <template <int> class Dot, int N>
void multiply_row_tile(const matrix & w, const activations & a, int64_t panel, int64_t n_panels, const int8_t * q,
                       int64_t token, float * y, int64_t y_stride) {
    constexpr int PANELS = Dot<N>::PANELS;
    const uint8_t * blocks  = w.panel(panel);
    const int64_t   next    = n_panels == PANELS ? w.panel_bytes() : 0;  // 0: the same again, and not stored
    const int64_t   columns = a.segment_columns();
    const float   * factors = a.factors + token*a.n_segments;
    const int32_t * offsets = a.offsets + token*a.n_segments;
    const int64_t   n_here  = a.n_tokens - token < N ? a.n_tokens - token : N;
    alignas(64) int32_t sums[PANELS*N][PANEL_ROWS];
    alignas(64) float   results[PANELS*N][PANEL_ROWS];

    if (a.n_segments == 1) {
        Dot<N>::run(blocks, next, columns/BLOCK_COLUMNS, q, sums);
        for (int64_t p = 0; p < n_panels; ++p) {
            for (int64_t t = 0; t < n_here; ++t) {
                finish_row(sums[p*N + t], w.scales + (panel + p)*PANEL_ROWS, factors[t], offsets[t], results[p*N + t]);
            }
        }
    } else {
        for (int i = 0; i < PANELS*N; ++i) {
            clear_row(results[i]);
        }
        for (int64_t i = 0; i < a.n_segments; ++i) {
            const int64_t column = i*columns;
            Dot<N>::run(blocks + column*PANEL_ROWS/4, next, columns/BLOCK_COLUMNS, q + column*N, sums);
            for (int64_t p = 0; p < n_panels; ++p) {
                for (int64_t t = 0; t < n_here; ++t) {
                    const int64_t at = t*a.n_segments + i;
                    add_segment(sums[p*N + t], factors[at], offsets[at], results[p*N + t]);
                }
            }
        }
        for (int64_t p = 0; p < n_panels; ++p) {
            for (int64_t t = 0; t < n_here; ++t) {
                scale_row(w.scales + (panel + p)*PANEL_ROWS, results[p*N + t]);
            }
        }
    }
    for (int64_t p = 0; p < n_panels; ++p) {
        for (int64_t t = 0; t < n_here; ++t) {
            store_row(w, panel + p, results[p*N + t], y + (token + t)*y_stride);
        }
    }
}

template <template <int> class Dot>
struct rows {
    template <int N>
    struct tile {
        static constexpr int PANELS = Dot<N>::PANELS;

        template <typename... Arguments>
        static void multiply(const Arguments &... arguments) { multiply_row_tile<Dot, N>(arguments...); }
    };
};

template <template <int> class Tile, int N>
struct choose_width {
    template <typename... Arguments>
    static void multiply(int64_t width, const Arguments &... arguments) {
        if (width == N) {
            Tile<N>::multiply(arguments...);
        } else {
            choose_width<Tile, N - 1>::multiply(width, arguments...);
        }
    }
};

template <template <int> class Tile>
struct choose_width<Tile, 0> {
    template <typename... Arguments>
    static void multiply(int64_t, const Arguments &...) {}
};

// Tokens whose activations stay in the second-level cache while the panels pass by.
constexpr int64_t TOKENS_AT_ONCE = 128;

template <template <int> class Tile, int TILE, int PADDING>
void multiply_tiles(const matrix & w, const activations & a, int64_t first, int64_t last, float * y,
                           int64_t y_stride) {
    constexpr int64_t PANELS = Tile<TILE>::PANELS;
    static_assert(TOKENS_AT_ONCE % TILE == 0, "a tile must not straddle two passes");
    for (int64_t begin = 0; begin < a.n_tokens; begin += TOKENS_AT_ONCE) {
        const int64_t end = a.n_tokens - begin < TOKENS_AT_ONCE ? a.n_tokens : begin + TOKENS_AT_ONCE;
        for (int64_t panel = first; panel < last; panel += PANELS) {
            const int64_t n_panels = last - panel < PANELS ? last - panel : PANELS;
            for (int64_t token = begin; token < end; token += TILE) {
                const int64_t left  = end - token;
                const int64_t width = left < TILE ? (left + PADDING - 1)/PADDING*PADDING : TILE;
                choose_width<Tile, TILE>::multiply(width, w, a, panel, n_panels, a.q + token*a.n_columns, token, y,
                                                         y_stride);
            }
        }
    }
}

}  // namespace

}  // namespace edgellm::ternary
