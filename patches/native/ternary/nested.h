// Products of matrices with nested scales: those of K-quants with four, five and six bits. Included like finish.h.
//
//     part    = scale_0 * sum_0 + scale_1 * sum_1 + ...          over the eight times 32 columns of a group
//     minima  = minimum_0 * sum_q_0 + minimum_1 * sum_q_1 + ...  likewise, an exact integer
//     y      += (d * part - d_minima * minima) * 1/s             over the groups of a row; fused, in this order
//
// Six bits have a scale for 16 columns, sums of (code - 32) * q, and no minima: y += (d * part) * 1/s.
//
// Activations share a scale s for the 256 columns of a group, as upstream has it for K-quants.
//
// Matrices of four bits with a scale and a minimum for each 32 columns are like one level of that:
//
//     y += (scale * sum + minimum * sum_q) * 1/s                 over the groups of 32 columns
//
// Beside what groups.h asks for, an `Isa` has
//
//     none()                                sums that begin with zero
//     scales(bytes)                         16 float32 from uint8, or from int8
//     add_scaled(part, sums, scales)        part += scales * sums
//     minima(pairs, offsets)                16 sums of minima times sums of activations
//     add_nested(total, part, minima, d, d_minima, factor)
//     add_nested(total, part, d, factor)
//     add_minima(total, part, minima, offset, factor)
//                                           total += (part - minima * offset) * factor
#pragma once

#include "groups.h"

namespace edgellm::ternary {

namespace {

// The running results of the tokens of a tile, as group_totals.
template <class Isa, int TOKENS, int N = TOKENS>
struct nested_totals {
    nested_totals<Isa, TOKENS, N - 1> before;
    typename Isa::sums   sums;
    typename Isa::floats part, total;

    void clear() {
        before.clear();
        total = Isa::zero();
    }
    void begin_group() {
        before.begin_group();
        part = Isa::zero();
    }
    void begin_segment() {
        before.begin_segment();
        sums = Isa::none();
    }
    void begin_segment(const int32_t * offsets, int64_t stride) {
        before.begin_segment(offsets, stride);
        sums = Isa::start(offsets + (N - 1)*stride, stride);
    }
    template <int BITS, int STEP>
    void add(const typename Isa::codes & codes, const int8_t * q) {
        before.template add<BITS, STEP>(codes, q);
        Isa::template add<BITS, STEP, TOKENS>(sums, codes, q, N - 1);
    }
    void end_segment(const typename Isa::floats & scales) {
        before.end_segment(scales);
        Isa::add_scaled(part, sums, scales);
    }
    void end_group(const nested_scales & s, const typename Isa::floats & d, const typename Isa::floats & d_minima,
                   const activations & a, const int32_t * offsets, const float * factor) {
        before.end_group(s, d, d_minima, a, offsets, factor);
        const auto minima = Isa::minima(s.minima, offsets + (N - 1)*(a.n_columns/PAIR_COLUMNS));
        Isa::add_nested(total, part, minima, d, d_minima, factor + (N - 1)*a.n_segments);
    }
    void end_group(const typename Isa::floats & d, const activations & a, const float * factor) {
        before.end_group(d, a, factor);
        Isa::add_nested(total, part, d, factor + (N - 1)*a.n_segments);
    }
    void store(float (*results)[PANEL_ROWS]) const {
        before.store(results);
        Isa::store(total, results + N - 1);
    }
};

template <class Isa, int TOKENS>
struct nested_totals<Isa, TOKENS, 0> {
    void clear() {}
    void begin_group() {}
    void begin_segment() {}
    void begin_segment(const int32_t *, int64_t) {}
    template <int BITS, int STEP>
    void add(const typename Isa::codes &, const int8_t *) {}
    void end_segment(const typename Isa::floats &) {}
    void end_group(const nested_scales &, const typename Isa::floats &, const typename Isa::floats &, const activations &,
                   const int32_t *, const float *) {}
    void end_group(const typename Isa::floats &, const activations &, const float *) {}
    void store(float (*)[PANEL_ROWS]) const {}
};

// The 256 columns of a group.
template <class Isa, int BITS, int N>
inline void add_group(nested_totals<Isa, N> & all, const activations & a, const uint8_t * blocks, const nested_scales & s,
                      const int8_t * q, const int32_t * offsets, const float * factor) {
    for (int i = 0; i < 8; ++i, blocks += GROUP_SEGMENT_COLUMNS*PANEL_ROWS*BITS/8, q += N*GROUP_SEGMENT_COLUMNS) {
        all.begin_segment();
        add_steps<Isa, BITS, 0, 8>(all, Isa::template load<BITS>(blocks), q);
        all.end_segment(Isa::scales(s.scales[i]));
    }
    all.end_group(s, Isa::scales(s.d), Isa::scales(s.d_minima), a, offsets, factor);
}

template <class Isa, int BITS, int N>
inline void add_group(nested_totals<Isa, N> & all, const activations & a, const uint8_t * blocks, const signed_scales & s,
                      const int8_t * q, const int32_t * offsets, const float * factor) {
    const int64_t stride = a.n_columns/SIGNED_COLUMNS;
    for (int i = 0; i < 8; ++i, blocks += GROUP_SEGMENT_COLUMNS*PANEL_ROWS*BITS/8, q += N*GROUP_SEGMENT_COLUMNS) {
        const auto segment = Isa::template load<BITS>(blocks);
        all.begin_segment(offsets + 2*i, stride);
        add_steps<Isa, BITS, 0, 4>(all, segment, q);
        all.end_segment(Isa::scales(s.scales[2*i]));
        all.begin_segment(offsets + 2*i + 1, stride);
        add_steps<Isa, BITS, 4, 8>(all, segment, q);
        all.end_segment(Isa::scales(s.scales[2*i + 1]));
    }
    all.end_group(Isa::scales(s.d), a, factor);
}

template <typename Scales>
inline void prefetch_scales(const Scales * s) {
    for (int64_t i = 0; i < (int64_t) sizeof(*s); i += 64) {
        __builtin_prefetch((const char *) s + i);
    }
}

// The rows of one panel times the N tokens of one tile.
template <class Isa, int BITS, typename Scales, int N>
void multiply_nested_tile(const matrix & w, const activations & a, int64_t panel, const int8_t * q, int64_t token,
                          float * y, int64_t y_stride) {
    constexpr int64_t GROUP_COLUMNS = SEGMENT_COLUMNS, GROUP_BYTES = GROUP_COLUMNS*PANEL_ROWS*BITS/8;
    constexpr int64_t OFFSET_COLUMNS = BITS == 6 ? SIGNED_COLUMNS : PAIR_COLUMNS;
    const uint8_t * blocks  = w.panel(panel);
    const Scales  * scales  = w.nested<Scales>(panel);
    const float   * factors = a.factors + token*a.n_segments;
    const int32_t * offsets = a.offsets + token*(a.n_columns/OFFSET_COLUMNS);
    const int64_t   n_here  = a.n_tokens - token < N ? a.n_tokens - token : N;
    const int64_t   n_groups = w.n_groups();
    nested_totals<Isa, N> all;
    alignas(64) float results[N][PANEL_ROWS];

    all.clear();
    for (int64_t group = 0; group < n_groups; ++group, ++scales) {
        prefetch_scales((const Scales *) ((const uint8_t *) scales + w.panel_bytes()));
        all.begin_group();
        add_group<Isa, BITS, N>(all, a, blocks, *scales, q, offsets, factors + group);
        blocks  += GROUP_BYTES;
        q       += N*GROUP_COLUMNS;
        offsets += GROUP_COLUMNS/OFFSET_COLUMNS;
    }
    all.store(results);
    for (int64_t t = 0; t < n_here; ++t) {
        store_row(w, panel, results[t], y + (token + t)*y_stride);
    }
}

// The running results of the tokens of a tile, with minima.
template <class Isa, int TOKENS, int N = TOKENS>
struct minima_totals {
    minima_totals<Isa, TOKENS, N - 1> before;
    typename Isa::sums   sums;
    typename Isa::floats total;

    void clear() {
        before.clear();
        total = Isa::zero();
    }
    void begin_group() {
        before.begin_group();
        sums = Isa::none();
    }
    template <int BITS, int STEP>
    void add(const typename Isa::codes & codes, const int8_t * q) {
        before.template add<BITS, STEP>(codes, q);
        Isa::template add<BITS, STEP, TOKENS>(sums, codes, q, N - 1);
    }
    void end_group(const typename Isa::floats & scales, const typename Isa::floats & minima, const activations & a,
                   const int32_t * offset, const float * factor) {
        before.end_group(scales, minima, a, offset, factor);
        typename Isa::floats part = Isa::zero();
        Isa::add_scaled(part, sums, scales);
        Isa::add_minima(total, part, minima, offset + (N - 1)*a.n_segments, factor + (N - 1)*a.n_segments);
    }
    void store(float (*results)[PANEL_ROWS]) const {
        before.store(results);
        Isa::store(total, results + N - 1);
    }
};

template <class Isa, int TOKENS>
struct minima_totals<Isa, TOKENS, 0> {
    void clear() {}
    void begin_group() {}
    template <int BITS, int STEP>
    void add(const typename Isa::codes &, const int8_t *) {}
    void end_group(const typename Isa::floats &, const typename Isa::floats &, const activations &, const int32_t *,
                   const float *) {}
    void store(float (*)[PANEL_ROWS]) const {}
};

// The rows of one panel times the N tokens of one tile.
template <class Isa, int BITS, int N>
void multiply_minima_tile(const matrix & w, const activations & a, int64_t panel, const int8_t * q, int64_t token,
                          float * y, int64_t y_stride) {
    constexpr int64_t GROUP_COLUMNS = GROUP_SEGMENT_COLUMNS, GROUP_BYTES = GROUP_COLUMNS*PANEL_ROWS*BITS/8;
    const uint8_t  * blocks  = w.panel(panel);
    const uint16_t * scales  = w.group_scales(panel);
    const float    * factors = a.factors + token*a.n_segments;
    const int32_t  * offsets = a.offsets + token*a.n_segments;
    const int64_t    n_here  = a.n_tokens - token < N ? a.n_tokens - token : N;
    const int64_t    n_groups = w.n_groups();
    minima_totals<Isa, N> all;
    alignas(64) float results[N][PANEL_ROWS];

    all.clear();
    for (int64_t group = 0; group < n_groups; ++group, scales += 2*PANEL_ROWS, blocks += GROUP_BYTES) {
        __builtin_prefetch((const uint8_t *) scales + w.panel_bytes());
        all.begin_group();
        add_steps<Isa, BITS, 0, Isa::STEPS>(all, Isa::template load<BITS>(blocks), q);
        all.end_group(Isa::scales(scales), Isa::scales(scales + PANEL_ROWS), a, offsets + group, factors + group);
        q += N*GROUP_COLUMNS;
    }
    all.store(results);
    for (int64_t t = 0; t < n_here; ++t) {
        store_row(w, panel, results[t], y + (token + t)*y_stride);
    }
}

template <template <int> class Isa, int BITS>
struct minima {
    template <int N>
    struct tile {
        static constexpr int PANELS = 1;

        static void multiply(const matrix & w, const activations & a, int64_t panel, int64_t, const int8_t * q,
                             int64_t token, float * y, int64_t y_stride) {
            multiply_minima_tile<Isa<BITS>, BITS, N>(w, a, panel, q, token, y, y_stride);
        }
    };
};

// `Isa<BITS>` is what serves codes of so many bits.
template <template <int> class Isa, int BITS, typename Scales>
struct nested {
    template <int N>
    struct tile {
        static constexpr int PANELS = 1;

        static void multiply(const matrix & w, const activations & a, int64_t panel, int64_t, const int8_t * q,
                             int64_t token, float * y, int64_t y_stride) {
            multiply_nested_tile<Isa<BITS>, BITS, Scales, N>(w, a, panel, q, token, y, y_stride);
        }
    };
};

// The kernels of one level for all K-quants.
template <template <int> class Isa, int TILE>
constexpr kernels nested_kernels(int bits, decltype(kernels::absolute_maximum) maximum,
                                 decltype(kernels::quantize) quantize) {
    return bits == 4 ? kernels{ 4, TILE, 1, maximum, quantize,
                                multiply_tiles<nested<Isa, 4, nested_scales>::template tile, TILE, 1>, 0, PAIR_COLUMNS }
         : bits == 5 ? kernels{ 4, TILE, 1, maximum, quantize,
                                multiply_tiles<nested<Isa, 5, nested_scales>::template tile, TILE, 1>, 0, PAIR_COLUMNS }
                     : kernels{ 4, TILE, 1, maximum, quantize,
                                multiply_tiles<nested<Isa, 6, signed_scales>::template tile, TILE, 1>, 32, SIGNED_COLUMNS };
}

}  // namespace

}  // namespace edgellm::ternary
