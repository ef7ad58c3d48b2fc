// Attention: every function bit for bit what the contract says.

#include "check.h"
#include "half.h"

#include "attention/kernels.h"

#include <cmath>
#include <cstring>

namespace check {

namespace {

using edgellm::attention::kernels;
using edgellm::attention::ONE;
using edgellm::attention::TILE;

constexpr uint16_t MINUS_INFINITY = 0xfc00;

float as_float(float x) { return x; }
float as_float(uint16_t half) { return half_to_float(half); }

// The same bits; of NaN only that it is one.
bool same(const float * a, const float * b, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        if (memcmp(a + i, b + i, sizeof(float)) != 0 && !(std::isnan(a[i]) && std::isnan(b[i]))) {
            return false;
        }
    }
    return true;
}

void fill(buffer<float> & values, uint32_t seed) {
    random numbers(seed);
    for (auto & x : values) { x = numbers.uniform(); }
}

// Finite halfs of both signs.
void fill(buffer<uint16_t> & values, uint32_t seed) {
    random numbers(seed);
    for (auto & x : values) { x = (uint16_t) (numbers.between(0, 0x3fff) | numbers.between(0, 1) << 15); }
}

template <typename Element>
void transpose_truth(const char * rows, size_t stride, int n, int64_t n_dims, void * columns) {
    Element * out = (Element *) columns;
    for (int row = 0; row < n; ++row) {
        for (int64_t dim = 0; dim < n_dims; ++dim) {
            out[dim*TILE + row] = ((const Element *) (rows + row*stride))[dim];
        }
    }
}

template <typename Element>
void multiply_truth(const float * const * a, float * const * c, int n, const char * b, size_t stride, int64_t n_inner,
                    int64_t n_cols, bool add) {
    for (int row = 0; row < n; ++row) {
        for (int64_t col = 0; col < n_cols; ++col) {
            float sum = add ? c[row][col] : 0.0f;
            for (int64_t i = 0; i < n_inner; ++i) {
                sum = std::fmaf(a[row][i], as_float(((const Element *) (b + i*stride))[col]), sum);
            }
            c[row][col] = sum;
        }
    }
}

float mask_truth(float * scores, const uint16_t * mask, float scale, float slope) {
    float largest = -INFINITY;
    for (int i = 0; i < TILE; ++i) {
        const float m = half_to_float(mask[i]);
        scores[i] = m == -INFINITY ? m : std::fmaf(scores[i], scale, m*slope);
        largest   = scores[i] > largest ? scores[i] : largest;
    }
    return largest;
}

float exponential_truth(float x) {
    const float bits = std::fmaf(x, 1.44269504f, 12582912.0f), n = bits - 12582912.0f;
    const float r = std::fmaf(-n, 1.42860677e-6f, std::fmaf(-n, 0.693145752f, x));
    float p = 1.0f/720;
    for (float coefficient : { 1.0f/120, 1.0f/24, 1.0f/6, 0.5f, 1.0f, 1.0f }) {
        p = std::fmaf(p, r, coefficient);
    }
    return x < -87.0f ? 0.0f : std::ldexp(p, (int) n);
}

int64_t weigh_truth(float * scores, float largest) {
    int64_t sum = 0;
    for (int i = 0; i < TILE; ++i) {
        scores[i] = exponential_truth(scores[i] - largest);
        sum += (int64_t) std::nearbyint(scores[i]*ONE);
    }
    return sum;
}

template <typename Element>
void check_transpose(report & r, decltype(kernels::transpose_halfs) transpose, int n, int64_t n_dims, int64_t apart) {
    buffer<Element> rows((n - 1)*apart + n_dims);
    fill(rows, n + n_dims);
    buffer<Element> found(n_dims*TILE, 7), expected(n_dims*TILE, 7);
    transpose((const char *) rows.data(), apart*sizeof(Element), n, n_dims, found.data());
    transpose_truth<Element>((const char *) rows.data(), apart*sizeof(Element), n, n_dims, expected.data());
    r.expect(memcmp(found.data(), expected.data(), found.size()*sizeof(Element)) == 0, "%d rows of %lld, %lld apart", n, (long long) n_dims,
             (long long) apart);
}

template <typename Element>
void check_transposes(report & r, const char * name, decltype(kernels::transpose_halfs) transpose) {
    if (!r.begin(name, transpose)) {
        return;
    }
    for (int n : { 1, 15, 16, 17, 40, 64 }) {
        for (int64_t n_dims : { 16, 64, 80, 576 }) {
            for (int64_t gap : { 0, 8, 128 }) {
                check_transpose<Element>(r, transpose, n, n_dims, n_dims + gap);
            }
        }
    }
    buffer<Element> rows(TILE*128);
    fill(rows, 1);
    buffer<Element> out(TILE*128);
    const auto call = [&](auto f) { f((const char *) rows.data(), 128*sizeof(Element), TILE, 128, out.data()); };
    r.time("64 rows of 128", [&] { call(transpose); }, [&] { call(transpose_truth<Element>); });
    r.end();
}

// Rows of a and c that lie anywhere.
template <typename Element>
void check_multiply(report & r, decltype(kernels::multiply) multiply, int n, int64_t n_inner, int64_t n_cols, bool add) {
    buffer<float> a(n*n_inner), found(n*n_cols), expected(n*n_cols);
    buffer<Element> b(n_inner*n_cols);
    fill(a, n);
    fill(b, n_inner);
    fill(found, n_cols);
    for (int64_t i = 0; i < found.size(); ++i) { expected[i] = found[i]; }
    const float * rows[64];
    float * to[64], * truth[64];
    for (int row = 0; row < n; ++row) {
        rows[row]  = a.data() + row*n_inner;
        to[row]    = found.data() + (n - 1 - row)*n_cols;
        truth[row] = expected.data() + (n - 1 - row)*n_cols;
    }
    const size_t stride = n_cols*sizeof(Element);
    multiply(rows, to, n, (const char *) b.data(), stride, n_inner, n_cols, add);
    multiply_truth<Element>(rows, truth, n, (const char *) b.data(), stride, n_inner, n_cols, add);
    r.expect(same(found.data(), expected.data(), found.size()), "%d rows of %lld, %lld columns%s", n, (long long) n_inner,
             (long long) n_cols, add ? ", added" : "");
}

template <typename Element>
void check_multiplies(report & r, const char * name, decltype(kernels::multiply) multiply) {
    if (!r.begin(name, multiply)) {
        return;
    }
    for (int n : { 1, 2, 3, 4, 5, 6, 7, 13, 64 }) {
        for (int64_t n_inner : { 1, 40, 64 }) {
            for (int64_t n_cols : { 16, 64, 80, 128 }) {
                check_multiply<Element>(r, multiply, n, n_inner, n_cols, n_inner % 2 == 0);
            }
        }
    }
    buffer<float> a(64*TILE), c(64*128);
    buffer<Element> b(TILE*128);
    fill(a, 1);
    fill(b, 1);
    const float * rows[64];
    float * to[64];
    for (int i = 0; i < 64; ++i) {
        rows[i] = a.data() + i*TILE;
        to[i]   = c.data() + i*128;
    }
    for (int n : { 1, 4, 64 }) {
        const auto call = [&](auto f) { f(rows, to, n, (const char *) b.data(), 128*sizeof(Element), TILE, 128, false); };
        r.time(std::to_string(n) + " rows of 64, 128 columns", [&] { call(multiply); },
               [&] { call(multiply_truth<Element>); });
    }
    r.end();
}

// A mask of -infinity but for some at `seen` and every fifth behind it; with `seen` = TILE nothing is hidden.
void check_mask(report & r, decltype(kernels::mask_scores) mask_scores, int seen, float slope) {
    buffer<float> found(TILE), expected(TILE);
    buffer<uint16_t> mask(TILE, MINUS_INFINITY);
    fill(found, seen);
    if (seen == TILE) {
        fill(mask, 3);
    }
    for (int i = 0; i < TILE; ++i) {
        if (i >= seen && (i - seen) % 5 == 0) { mask[i] = i % 2 ? 0 : 0xbc00; }
        if (mask[i] == MINUS_INFINITY) { found[i] = i % 3 ? NAN : INFINITY; }  // what is hidden may be anything
        expected[i] = found[i];
    }
    const float most  = mask_scores(found.data(), mask.data(), 0.3f, slope);
    const float truth = mask_truth(expected.data(), mask.data(), 0.3f, slope);
    r.expect(most == truth && same(found.data(), expected.data(), TILE), "from %d on, slope %g", seen, slope);
}

void check_weigh(report & r, decltype(kernels::weigh) weigh, uint32_t seed, float spread) {
    buffer<float> found(TILE), expected(TILE);
    random numbers(seed);
    for (int i = 0; i < TILE; ++i) {
        found[i]    = i % 7 == 6 ? -INFINITY : 1 - spread*std::fabs(numbers.uniform());
        expected[i] = found[i];
    }
    const int64_t sum = weigh(found.data(), 1.0f), truth = weigh_truth(expected.data(), 1.0f);
    r.expect(sum == truth && same(found.data(), expected.data(), TILE), "seed %u, spread %g", seed, spread);
}

// exp itself: within two units in the last place, and 1 for 0.
void check_exponential(report & r, decltype(kernels::weigh) weigh) {
    double worst = 0;
    for (float x = -87.0f; x < 0; x += 87.0f/TILE/256) {
        float scores[TILE];
        for (int i = 0; i < TILE; ++i) { scores[i] = x; }
        weigh(scores, 0.0f);
        worst = std::fmax(worst, std::fabs(scores[0]/std::exp((double) x) - 1));
    }
    float zeros[TILE] = {};
    const int64_t sum = weigh(zeros, 0.0f);
    r.expect(worst < 0x1p-22 && zeros[0] == 1 && sum == (int64_t) (TILE*ONE), "exp is wrong by %g", worst);
}

}  // namespace

void attention(report & r, unsigned levels) {
    const kernels k = edgellm::attention::best(levels);
    check_transposes<uint16_t>(r, "attention transpose_halfs", k.transpose_halfs);
    check_transposes<float>(r, "attention transpose_floats", k.transpose_floats);
    check_multiplies<float>(r, "attention multiply", k.multiply);
    check_multiplies<uint16_t>(r, "attention multiply_halfs", k.multiply_halfs);
    if (r.begin("attention mask_scores", k.mask_scores)) {
        for (float slope : { 1.0f, 0.5f, 0.0f }) {
            for (int seen = 0; seen <= TILE; ++seen) {
                check_mask(r, k.mask_scores, seen, slope);
            }
        }
        r.end();
    }
    if (r.begin("attention weigh", k.weigh)) {
        for (uint32_t seed = 0; seed < 200; ++seed) {
            for (float spread : { 0.01f, 3.0f, 90.0f }) {
                check_weigh(r, k.weigh, seed, spread);
            }
        }
        check_exponential(r, k.weigh);
        buffer<float> scores(TILE, -0.5f);
        r.time("64 scores", [&] { keep(k.weigh(scores.data(), 1.0f)); }, [&] { keep(weigh_truth(scores.data(), 1.0f)); });
        r.end();
    }
}

}  // namespace check
