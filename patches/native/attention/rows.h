// The kernels of attention, one for all levels. Every kernel file includes this and compiles it for its own instruction
// set, so the linker must not merge anything defined here: no std::, everything in an unnamed namespace.
//
// `Isa` has vectors of 16 floats:
//
//     ROWS, VECTORS                    a product keeps so many rows times so many vectors in registers
//     load(p), load_halfs(p), store(p, v), all(x)
//     fma(a, b, c), mul(a, b), sub(a, b)
//     larger(a, b)                     a > b ? a : b
//     largest(v)                       the largest of the 16
//     hide(v, mask)                    -infinity where the mask is -infinity
//     zero_below(v, x, limit)          0 where x < limit
//     times_power_of_two(v, bits)      v 2^n, n the low bits of the float `bits`
//     count(p, counts)                 adds the 16 floats, rounded to integers, to 16 int32
//     sum(counts)                      of the 16 int32
//     transpose(rows, stride, out)     16 rows of 16 halfs, or floats, to columns, TILE apart
#pragma once

#include "kernels.h"

namespace edgellm::attention {

namespace {

template <class Isa, typename Element>
void transpose(const char * rows, size_t stride, int n, int64_t n_dims, void * columns) {
    Element * out = (Element *) columns;
    int row = 0;
    for (; row + 16 <= n; row += 16) {
        const char * first = rows + row*stride;
        for (int64_t dim = 0; dim < n_dims; dim += 16) {
            Isa::transpose((const Element *) first + dim, stride, out + dim*TILE + row);
        }
    }
    for (; row < n; ++row) {
        for (int64_t dim = 0; dim < n_dims; ++dim) {
            out[dim*TILE + row] = ((const Element *) (rows + row*stride))[dim];
        }
    }
}

template <class Isa, typename Element, int ROWS, int VECTORS>
void multiply_block(const float * const * a, float * const * c, const char * b, size_t stride, int64_t n_inner,
                    int64_t column, bool add) {
    typename Isa::vector sums[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) {
            sums[r][v] = add ? Isa::load(c[r] + column + 16*v) : Isa::all(0.0f);
        }
    }
    b += column*sizeof(Element);
    for (int64_t i = 0; i < n_inner; ++i, b += stride) {
        typename Isa::vector x[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) {
            x[v] = Isa::load_any((const Element *) b + 16*v);
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const typename Isa::vector factor = Isa::all(a[r][i]);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; ++v) {
                sums[r][v] = Isa::fma(factor, x[v], sums[r][v]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) {
            Isa::store(c[r] + column + 16*v, sums[r][v]);
        }
    }
}

// ROWS rows, or n if there are fewer.
template <class Isa, typename Element, int ROWS>
void multiply_rows(const float * const * a, float * const * c, int n, const char * b, size_t stride, int64_t n_inner,
                   int64_t n_cols, bool add) {
    if constexpr (ROWS > 1) {
        if (n < ROWS) {
            return multiply_rows<Isa, Element, ROWS - 1>(a, c, n, b, stride, n_inner, n_cols, add);
        }
    }
    int64_t column = 0;
    for (; column + 16*Isa::VECTORS <= n_cols; column += 16*Isa::VECTORS) {
        multiply_block<Isa, Element, ROWS, Isa::VECTORS>(a, c, b, stride, n_inner, column, add);
    }
    if constexpr (Isa::VECTORS > 2) {  // heads of 96: one vector at a time would wait for its sums
        for (; column + 32 <= n_cols; column += 32) {
            multiply_block<Isa, Element, ROWS, 2>(a, c, b, stride, n_inner, column, add);
        }
    }
    for (; column < n_cols; column += 16) {
        multiply_block<Isa, Element, ROWS, 1>(a, c, b, stride, n_inner, column, add);
    }
}

template <class Isa, typename Element>
void multiply(const float * const * a, float * const * c, int n, const char * b, size_t stride, int64_t n_inner,
              int64_t n_cols, bool add) {
    for (int row = 0; row < n; row += Isa::ROWS) {
        multiply_rows<Isa, Element, Isa::ROWS>(a + row, c + row, n - row, b, stride, n_inner, n_cols, add);
    }
}

template <class Isa>
float mask_scores(float * scores, const uint16_t * mask, float scale, float slope) {
    const typename Isa::vector scales = Isa::all(scale), slopes = Isa::all(slope);
    typename Isa::vector largest = Isa::all(-__builtin_inff());
    for (int i = 0; i < TILE; i += 16) {
        const typename Isa::vector m = Isa::load_halfs(mask + i);
        const typename Isa::vector s = Isa::hide(Isa::fma(Isa::load(scores + i), scales, Isa::mul(m, slopes)), m);
        largest = Isa::larger(s, largest);
        Isa::store(scores + i, s);
    }
    return Isa::largest(largest);
}

// exp(x) for x <= 0, 0 below -87: 2^n exp(r) with |r| <= log(2)/2, exp(r) by its series up to r^6; the error is below 2
// units in the last place.
template <class Isa>
inline typename Isa::vector exponential(typename Isa::vector x) {
    const typename Isa::vector round = Isa::all(12582912.0f);  // 1.5 * 2^23: what is added to it is rounded to integers
    const typename Isa::vector bits  = Isa::fma(x, Isa::all(1.44269504f), round);
    const typename Isa::vector minus_n = Isa::sub(round, bits);
    const typename Isa::vector r = Isa::fma(minus_n, Isa::all(1.42860677e-6f), Isa::fma(minus_n, Isa::all(0.693145752f), x));
    typename Isa::vector p = Isa::all(1.0f/720);
    p = Isa::fma(p, r, Isa::all(1.0f/120));
    p = Isa::fma(p, r, Isa::all(1.0f/24));
    p = Isa::fma(p, r, Isa::all(1.0f/6));
    p = Isa::fma(p, r, Isa::all(0.5f));
    p = Isa::fma(p, r, Isa::all(1.0f));
    p = Isa::fma(p, r, Isa::all(1.0f));
    return Isa::zero_below(Isa::times_power_of_two(p, bits), x, -87.0f);
}

template <class Isa>
int64_t weigh(float * scores, float largest) {
    const typename Isa::vector most = Isa::all(largest), one = Isa::all(ONE);
    typename Isa::counts counts = Isa::no_counts();
    for (int i = 0; i < TILE; i += 16) {
        const typename Isa::vector w = exponential<Isa>(Isa::sub(Isa::load(scores + i), most));
        counts = Isa::count(Isa::mul(w, one), counts);
        Isa::store(scores + i, w);
    }
    return Isa::sum(counts);  // at most TILE/16 * ONE = 2^30 each
}

template <class Isa>
kernels kernels_of() {
    return { transpose<Isa, uint16_t>, transpose<Isa, float>, multiply<Isa, float>,
             multiply<Isa, uint16_t>, mask_scores<Isa>, weigh<Isa> };
}

}  // namespace

}  // namespace edgellm::attention
