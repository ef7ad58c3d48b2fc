// The kernels that -DCHECK_ONLY=NAME_kernels names against plain sums, on shapes that fit the tiles and shapes that do
// not. Prints their name; a difference ends it.

#include "../../patches/native/ternary/activations.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

using namespace edgellm::ternary;

static uint32_t state = 1;
static uint32_t next_random() { return state = state*1664525u + 1013904223u, state >> 8; }
static float next_float() { return (float) (next_random() & 0xffff)/32768.0f - 1.0f; }

struct product {
    int64_t rows, columns, tokens;
    bool by_segment, all_ones;
    std::vector<uint8_t> codes;   // [rows][columns]
    std::vector<uint8_t> panels;
    std::vector<float> scales, x;

    product(int64_t rows, int64_t columns, int64_t tokens, bool by_segment, bool all_ones)
        : rows(rows), columns(columns), tokens(tokens), by_segment(by_segment), all_ones(all_ones),
          codes(rows*columns), panels((rows + 15)/16*16*columns/4), scales((rows + 15)/16*16), x(tokens*columns) {
        for (auto & c : codes) c = all_ones ? 2 : next_random() % 3;
        for (int64_t r = 0; r < rows; ++r) scales[r] = all_ones ? 1.0f : 0.5f + next_float()/4;
        for (auto & v : x) v = all_ones ? 1.0f : next_float();
        for (int64_t r = 0; r < (rows + 15)/16*16; ++r)
            for (int64_t k = 0; k < columns; ++k) {
                const uint8_t code = r < rows ? codes[r*columns + k] : 1;
                uint8_t & byte = panels[r/16*16*columns/4 + k/16*64 + r%16*4 + k%4];
                byte = (byte & ~(3 << 2*(k%16/4))) | code << 2*(k%16/4);
            }
    }

    matrix weights() const { return { panels.data(), scales.data(), rows, columns }; }

    // The result by the formula, with sums in int64.
    void expect(std::vector<float> & y) const {
        const int64_t n_segments = by_segment ? columns/SEGMENT_COLUMNS : 1, n = columns/n_segments;
        std::vector<int> q(columns);
        for (int64_t t = 0; t < tokens; ++t) {
            std::vector<float> s(n_segments);
            for (int64_t i = 0; i < n_segments; ++i) {
                float maximum = 1e-5f;
                for (int64_t k = i*n; k < (i + 1)*n; ++k) maximum = std::fmax(maximum, std::fabs(x[t*columns + k]));
                s[i] = 127.0f/maximum;
                for (int64_t k = i*n; k < (i + 1)*n; ++k) q[k] = (int) std::nearbyintf(x[t*columns + k]*s[i]);
            }
            for (int64_t r = 0; r < rows; ++r) {
                float total = 0;
                for (int64_t i = 0; i < n_segments; ++i) {
                    int64_t sum = 0;
                    for (int64_t k = i*n; k < (i + 1)*n; ++k) sum += (codes[r*columns + k] - 1)*q[k];
                    if (n_segments == 1) total = (float) sum*scales[r]/s[i];
                    else total = std::fma((float) sum, 1.0f/s[i], total);
                }
                y[t*rows + r] = n_segments == 1 ? total : total*scales[r];
            }
        }
    }
};

static void run(const kernels & k, const product & p, std::vector<uint8_t> & work, float * y, int64_t step) {
    const quantizer quantize(k, work.data(), p.tokens, p.columns, p.by_segment, 1);
    for (int64_t t = 0; t < p.tokens; ++t) quantize.add(t, p.x.data() + t*p.columns, 0);
    quantize.pad();
    const matrix w = p.weights();
    for (int64_t first = 0; first < w.n_panels(); first += step)
        k.multiply(w, quantize.result(), first, std::min(first + step, w.n_panels()), y, p.rows);
}

static void check(const kernels & k, const product & p) {
    constexpr float UNTOUCHED = 12345.0f;
    std::vector<float> expected(p.tokens*p.rows), y(p.tokens*p.rows + 16, UNTOUCHED);
    std::vector<uint8_t> work(quantizer::work_size(k, p.tokens, p.columns, 1));
    p.expect(expected);
    for (int64_t step : { (int64_t) 3, (int64_t) 1 << 40 }) {
        run(k, p, work, y.data(), step);
        const bool same = memcmp(y.data(), expected.data(), expected.size()*sizeof(float)) == 0;
        if (!same || y[p.tokens*p.rows] != UNTOUCHED) {
            printf("%s: wrong at %lld rows x %lld columns x %lld tokens, %s\n", k.name, (long long) p.rows,
                   (long long) p.columns, (long long) p.tokens, p.by_segment ? "segments" : "whole rows");
            for (size_t i = 0, shown = 0; i < expected.size() && shown < 4; ++i)
                if (y[i] != expected[i]) { printf("  [%zu] %g, not %g\n", i, y[i], expected[i]); ++shown; }
            exit(1);
        }
    }
}

static void check_all(const kernels & k) {
    for (int64_t rows : { 1, 15, 16, 17, 48, 90 })
        for (int64_t columns : { 64, 128, 192, 320, 1088 })
            for (int64_t tokens : { 1, 2, 3, 5, 16, 17, 33 }) check(k, product(rows, columns, tokens, false, false));
    for (int64_t columns : { 256, 768, 1536 })
        for (int64_t tokens : { 1, 2, 7, 20, 130 }) check(k, product(40, columns, tokens, true, false));
    for (int64_t tokens = 1; tokens <= 40; ++tokens) check(k, product(16, 128, tokens, false, false));
    for (int64_t tokens : { 127, 128, 129, 255, 256, 257, 600 }) check(k, product(33, 256, tokens, false, false));
    // where int16 lanes would overflow
    for (int64_t columns : { 2560, 6912, 65536 }) check(k, product(16, columns, 3, false, true));
    check(k, product(640, 2560, 2, false, false));
    check(k, product(16, 4096, 9, true, false));
    // no token at all
    matrix none = { nullptr, nullptr, 0, 64 };
    k.multiply(none, activations{ nullptr, nullptr, nullptr, 0, 64, 1 }, 0, 0, nullptr, 0);
    // NaN and infinity make results that are not numbers, and nothing else happens
    product broken(16, 256, 2, false, false);
    broken.x[3] = NAN, broken.x[256 + 5] = INFINITY;
    std::vector<float> y(32);
    std::vector<uint8_t> work(quantizer::work_size(k, 2, 256, 1));
    run(k, broken, work, y.data(), 1);
    for (float v : y)
        if (std::isfinite(v)) { printf("%s: %g from NaN or infinity\n", k.name, v); exit(1); }
}

int main() {
    check_all(*CHECK_ONLY());
    printf("%s\n", CHECK_ONLY()->name);
    return 0;
}
