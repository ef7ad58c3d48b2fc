// Products of matrices whose rows have a scale for each group of columns, with one, two, four or eight bits a weight.
// Included like finish.h.
//
//     part = (sum_0 - z sum_q_0)/s_0 + (sum_1 - z sum_q_1)/s_1 + ...    over the segments of a group, z the code of 0
//     y    = scale_0 * part_0 + scale_1 * part_1 + ...                  over the groups of a row; all fused, in this order
//
// A segment is 32 columns: as many blocks as a code has bits. `Isa` is what an instruction set has to
// multiply it by the activations of WIDTH tokens, in STEPS steps of 16 rows x 32/STEPS columns:
//
//     load<BITS>(blocks)                    a segment of codes
//     field<BITS, STEP>(segment)            the codes of one step
//     start(offsets, stride)                sums of 16 rows that begin with the tokens' offsets, `stride` apart
//     add<BITS, STEP, TOKENS>(sums, field, q, token)
//                                           adds its products with a token and those after it, of TOKENS at q
//     zero(), scales(halves), store(v, y)   16 float32 a token
//     add_sums(total, sums, factors, stride)
//                                           total += sums * factors
//     add_part(total, part, scales)         total += part * scales
#pragma once

#include "finish.h"

namespace edgellm::ternary {

namespace {

// The running results of N times WIDTH tokens out of TOKENS; a chain of structs, because gcc keeps an array of them on the
// stack.
template <class Isa, int TOKENS, int N = TOKENS/Isa::WIDTH>
struct group_totals {
    static constexpr int FIRST = (N - 1)*Isa::WIDTH;
    group_totals<Isa, TOKENS, N - 1> before;
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
    void begin_segment(const int32_t * offsets, int64_t stride) {
        before.begin_segment(offsets, stride);
        sums = Isa::start(offsets + FIRST*stride, stride);
    }
    template <int BITS, int STEP>
    void add(const typename Isa::codes & codes, const int8_t * q) {
        before.template add<BITS, STEP>(codes, q);
        Isa::template add<BITS, STEP, TOKENS>(sums, codes, q, FIRST);
    }
    void end_segment(const float * factors, int64_t stride) {
        before.end_segment(factors, stride);
        Isa::add_sums(part, sums, factors + FIRST*stride, stride);
    }
    void end_group(const typename Isa::floats & scales) {
        before.end_group(scales);
        Isa::add_part(total, part, scales);
    }
    void store(float (*results)[PANEL_ROWS]) const {
        before.store(results);
        Isa::store(total, results + FIRST);
    }
};

template <class Isa, int TOKENS>
struct group_totals<Isa, TOKENS, 0> {
    void clear() {}
    void begin_group() {}
    void begin_segment(const int32_t *, int64_t) {}
    template <int BITS, int STEP>
    void add(const typename Isa::codes &, const int8_t *) {}
    void end_segment(const float *, int64_t) {}
    void end_group(const typename Isa::floats &) {}
    void store(float (*)[PANEL_ROWS]) const {}
};

// A level whose compiler would make a function of it, with all sums in memory, forbids that.
#ifndef EDGELLM_INLINE_STEPS
#    define EDGELLM_INLINE_STEPS inline
#endif

template <class Isa, int BITS, int STEP, int END, typename Totals, typename Segment>
EDGELLM_INLINE_STEPS void add_steps(Totals & all, const Segment & segment, const int8_t * q) {
    if constexpr (STEP < END) {
        all.template add<BITS, STEP>(Isa::template field<BITS, STEP>(segment), q);
        add_steps<Isa, BITS, STEP + 1, END>(all, segment, q);
    }
}

// The segments of one group; their number is a constant where the compiler should know it.
template <class Isa, int BITS, int N, typename Count>
inline void add_segments(group_totals<Isa, N> & all, Count n_segments, int64_t stride, const uint8_t * blocks,
                         const int8_t * q, const int32_t * offsets, const float * factors) {
    constexpr int64_t SEGMENT_BYTES = GROUP_SEGMENT_COLUMNS*PANEL_ROWS*BITS/8;
    for (int64_t i = 0; i < n_segments; ++i, blocks += SEGMENT_BYTES, q += N*GROUP_SEGMENT_COLUMNS) {
        all.begin_segment(offsets + i, stride);
        add_steps<Isa, BITS, 0, Isa::STEPS>(all, Isa::template load<BITS>(blocks), q);
        all.end_segment(factors + i, stride);
    }
}

struct one_segment {
    operator int64_t() const { return 1; }
};

// The rows of one panel times the N tokens of one tile.
template <class Isa, int BITS, int N, typename Count>
void multiply_group_tile(const matrix & w, const activations & a, int64_t panel, const int8_t * q, int64_t token,
                         Count n_segments, float * y, int64_t y_stride) {
    const int64_t    group_columns = n_segments*GROUP_SEGMENT_COLUMNS;
    const uint8_t  * blocks  = w.panel(panel);
    const uint16_t * scales  = w.group_scales(panel);
    const float    * factors = a.factors + token*a.n_segments;
    const int32_t  * offsets = a.offsets + token*a.n_segments;
    const int64_t    n_here  = a.n_tokens - token < N ? a.n_tokens - token : N;
    const int64_t    n_groups = w.n_groups();
    const int64_t    next = w.panel_bytes();
    group_totals<Isa, N> all;
    alignas(64) float results[N][PANEL_ROWS];

    all.clear();
    for (int64_t group = 0; group < n_groups; ++group, scales += PANEL_ROWS) {
        __builtin_prefetch((const uint8_t *) scales + next);
        all.begin_group();
        add_segments<Isa, BITS, N>(all, n_segments, a.n_segments, blocks, q, offsets, factors);
        all.end_group(Isa::scales(scales));
        blocks  += group_columns*PANEL_ROWS*BITS/8;
        q       += N*group_columns;
        offsets += (int64_t) n_segments;
        factors += (int64_t) n_segments;
    }
    all.store(results);
    for (int64_t t = 0; t < n_here; ++t) {
        store_row(w, panel, results[t], y + (token + t)*y_stride);
    }
}

// `Isa<N>` is what serves N tokens at once.
template <template <int> class Isa, int BITS>
struct groups {
    template <int N>
    struct tile {
        static constexpr int PANELS = 1;

        static void multiply(const matrix & w, const activations & a, int64_t panel, int64_t, const int8_t * q,
                             int64_t token, float * y, int64_t y_stride) {
            const int64_t n_segments = w.packed.group_columns/GROUP_SEGMENT_COLUMNS;
            if (BITS >= 4 && n_segments == 1) {  // results of a group need no place of their own
                multiply_group_tile<Isa<N>, BITS, N>(w, a, panel, q, token, one_segment(), y, y_stride);
            } else {
                multiply_group_tile<Isa<N>, BITS, N>(w, a, panel, q, token, n_segments, y, y_stride);
            }
        }
    };
};

}  // namespace

}  // namespace edgellm::ternary
