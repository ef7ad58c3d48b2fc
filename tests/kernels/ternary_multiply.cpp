// Products of packed matrices, bit for bit, in every format.

#include "ternary.h"

#include "half.h"

#include "ternary/activations.h"

#include <cmath>

namespace check {

namespace {

using namespace edgellm::ternary;

constexpr int RANDOM = 999;  // instead of one value everywhere

constexpr format FORMATS[] = { ROW_SCALES, { 2, 64 }, { 2, 128 }, { 2, 256 }, { 1, 128 }, { 1, 64 }, { 4, 32 }, { 4, 64 },
                                 { 4, 32, false, true }, { 8, 32 }, { 8, 64 } };

// A product: codes 0 .. 2 (3 in some Q2_0 files), 0 and 2, 0 .. 15, or 0 .. 255, and activations; one value everywhere or at random.
struct product {
    format  packed;
    int64_t n_rows, n_columns, n_tokens, n_segments;
    int     code, activation;
    buffer<uint8_t>  codes, panels;
    buffer<uint16_t> halves;  // [row][group], or [row][group][scale, minimum]
    buffer<float>    scales, factors;
    buffer<int8_t>   q;
    buffer<int32_t>  offsets;

    product(const format & packed, int64_t rows, int64_t columns, int64_t tokens, int64_t segment, int code = RANDOM,
            int activation = RANDOM)
        : packed(packed), n_rows(rows), n_columns(columns), n_tokens(tokens), n_segments(columns/segment), code(code),
          activation(activation), codes(rows*columns), panels(padded_rows()*row_bytes()), halves(rows*n_scales()),
          scales(padded_rows()), factors(tokens*n_segments), q(tokens*columns), offsets(tokens*n_segments) {
        random numbers((uint32_t) (rows*columns + tokens));
        for (auto & c : codes) {
            c = (uint8_t) (code != RANDOM ? code : packed.bits == 1 ? numbers.next()%2*2 : packed.bits == 2 ? numbers.next()%3
                           : numbers.next()%(1u << packed.bits));
        }
        for (auto & v : q) { v = (int8_t) (activation == RANDOM ? numbers.between(-128, 127) : activation); }
        constexpr float EXTREME[] = { 0.0f, 1e-40f, 1e38f, -2.0f };
        constexpr uint16_t EXTREME_HALVES[] = { 0, 1, 0x7bff, 0xc000, 0x83ff };  // the second and the last are denormal
        for (int64_t r = 0; r < rows; ++r) { scales[r] = r%5 == 4 ? EXTREME[numbers.next()%4] : numbers.uniform(); }
        for (auto & h : halves) {
            h = numbers.next()%5 == 4 ? EXTREME_HALVES[numbers.next()%5] : (uint16_t) (0x2000 + numbers.next()%0x2000);
        }
        for (auto & f : factors) { f = 1e-3f + std::fabs(numbers.uniform()); }
        for (int64_t i = 0; i < q.size(); ++i) { offsets[i/segment] -= zero()*q[i]; }
        for (int64_t r = 0; r < rows; ++r) {
            for (int64_t c = 0; c < columns; ++c) { place(r, c, codes[r*columns + c]); }
            for (int64_t i = 0; i < n_scales(); ++i) { place_scale(r, i, halves[r*n_scales() + i]); }
        }
    }

    int zero() const { return packed.minima ? 1 : packed.bits == 8 ? 128 : packed.bits == 4 ? 8 : 1; }
    int64_t segment() const { return n_columns/n_segments; }
    int64_t n_groups() const { return packed.group_columns == 0 ? 0 : n_columns/packed.group_columns; }
    int64_t n_scales() const { return packed.minima ? 2*n_groups() : n_groups(); }
    int64_t row_bytes() const { return n_columns*packed.bits/8 + 2*n_scales(); }
    int64_t padded_rows() const { return (n_rows + PANEL_ROWS - 1)/PANEL_ROWS*PANEL_ROWS; }
    matrix weights() const { return { panels.data(), scales.data(), n_rows, n_columns, packed }; }

    // As layout.h has it.
    void place(int64_t row, int64_t column, int value) {
        uint8_t * panel = panels.data() + row/16*16*row_bytes();
        const int64_t fields = 8/packed.bits, block = column/(4*fields), field = column/4%fields;
        panel[block*64 + 4*(row%16) + column%4] |= (uint8_t) ((packed.bits == 1 ? value/2 : value) << packed.bits*field);
    }
    void place_scale(int64_t row, int64_t i, uint16_t half) {
        uint8_t * panel = panels.data() + row/16*16*row_bytes();
        memcpy(panel + 16*n_columns*packed.bits/8 + 2*(16*i + row%16), &half, sizeof(half));
    }

    int64_t sum(int64_t token, int64_t row, int64_t first, int64_t n) const {
        int64_t total = 0;
        for (int64_t c = first; c < first + n; ++c) { total += (codes[row*n_columns + c] - zero())*q[token*n_columns + c]; }
        return total;
    }

    // The formula of nested.h for a scale and a minimum.
    float truth_with_minima(int64_t token, int64_t row) const {
        float total = 0;
        for (int64_t g = 0; g < n_groups(); ++g) {
            int64_t sum_q = 0;
            for (int64_t c = 32*g; c < 32*g + 32; ++c) { sum_q += q[token*n_columns + c]; }
            const uint16_t * pair = &halves[row*n_scales() + 2*g];
            const float scaled = (float) (sum(token, row, 32*g, 32) + zero()*sum_q)*half_to_float(pair[0]);
            const float whole  = std::fma((float) sum_q, half_to_float(pair[1]), scaled);
            total = std::fma(whole, factors[token*n_segments + g], total);
        }
        return total;
    }

    // The result by the formulas of finish.h and groups.h, with sums in 64 bits.
    float truth(int64_t token, int64_t row) const {
        if (packed.minima) { return truth_with_minima(token, row); }
        const float * f = &factors[token*n_segments];
        if (packed.group_columns == 0 && n_segments == 1) { return (float) sum(token, row, 0, n_columns)*scales[row]/f[0]; }
        const int64_t group = packed.group_columns == 0 ? n_columns : packed.group_columns;
        float total = 0, part = 0;
        for (int64_t c = 0; c < n_columns; c += segment()) {
            part = std::fma((float) sum(token, row, c, segment()), f[c/segment()], c%group == 0 ? 0.0f : part);
            if (packed.group_columns != 0 && (c + segment())%group == 0) {
                total = std::fma(part, half_to_float(halves[row*n_groups() + c/group]), total);
            }
        }
        return packed.group_columns == 0 ? part*scales[row] : total;
    }

    void check(report & r, const kernels & k) const {
        constexpr float UNTOUCHED = 12345.0f;
        const int64_t stride = n_rows + 5, n_panels = weights().n_panels();
        const auto tokens = arranged(k, q, n_tokens, n_columns);
        const int64_t n_padded = (int64_t) tokens.size()/n_columns;
        buffer<float>   all_factors(n_padded*n_segments);
        buffer<int32_t> all_offsets(n_padded*n_segments);
        std::copy(factors.data(), factors.data() + factors.size(), all_factors.data());
        std::copy(offsets.data(), offsets.data() + offsets.size(), all_offsets.data());
        const activations a = { tokens.data(), all_factors.data(), all_offsets.data(), n_tokens, n_columns, n_segments };
        buffer<float> expected(n_tokens*stride, UNTOUCHED);
        for (int64_t t = 0; t < n_tokens; ++t) {
            for (int64_t i = 0; i < n_rows; ++i) { expected[t*stride + i] = truth(t, i); }
        }
        for (int64_t step : { (int64_t) 3, n_panels }) {
            buffer<float> y(n_tokens*stride, UNTOUCHED);
            for (int64_t first = 0; first < n_panels; first += step) {
                k.multiply(weights(), a, first, std::min(first + step, n_panels), y.data(), stride);
            }
            for (int64_t i = 0; i < y.size(); ++i) {
                if (!r.expect(same(&y[i], &expected[i], sizeof(float)),
                              "%lld rows x %lld columns x %lld tokens, %d bits, groups of %lld, %lld segments, codes %d, "
                              "activations %d: %g, not %g, at token %lld, row %lld", (long long) n_rows,
                              (long long) n_columns, (long long) n_tokens, packed.bits, (long long) packed.group_columns,
                              (long long) n_segments, code, activation, y[i], expected[i], (long long) (i/stride),
                              (long long) (i%stride))) { return; }
            }
        }
    }
};

// NaN and infinity make results that are not numbers, and nothing else happens.
void check_not_finite(report & r, const kernels & k, const format & packed) {
    const int64_t segment = packed.group_columns == 0 ? 256 : GROUP_SEGMENT_COLUMNS;
    const product p(packed, 16, 256, 2, segment);
    buffer<float> x(512, 0.5f), y(32);
    x[3] = NAN, x[256 + 5] = INFINITY;
    buffer<uint8_t> work((int64_t) quantizer::work_size(k, 2, 256, segment, 1));
    const quantizer quantize(k, work.data(), 2, 256, segment, 1);
    for (int64_t t : { 0, 1 }) { quantize.add(t, x.data() + 256*t, 0); }
    quantize.pad();
    k.multiply(p.weights(), quantize.result(), 0, 1, y.data(), 16);
    for (int64_t i = 0; i < 32 && packed.group_columns == 0; ++i) {
        r.expect(!std::isfinite(y[i]) || p.scales[i%16] == 0.0f, "NaN or infinity: %g", y[i]);
    }
}

// Matrices with a scale a row, whose activations have one scale or one for 256 columns.
void check_rows(report & r, const kernels & k) {
    const auto check = [&](int64_t rows, int64_t columns, int64_t tokens, bool by_segment = false, int code = RANDOM,
                           int activation = RANDOM) {
        product(ROW_SCALES, rows, columns, tokens, by_segment ? SEGMENT_COLUMNS : columns, code, activation).check(r, k);
    };
    for (int64_t rows : { 1, 15, 16, 17, 48, 90 }) {
        for (int64_t columns : { 64, 128, 192, 320, 1088 }) {
            for (int64_t tokens : { 1, 2, 3, 5, 16, 17, 33 }) { check(rows, columns, tokens); }
        }
    }
    for (int64_t columns : { 256, 768, 1536 }) {
        for (int64_t tokens : { 1, 2, 7, 20, 130 }) { check(40, columns, tokens, columns > 256); }
    }
    for (int64_t tokens = 1; tokens <= 40; ++tokens) { check(16, 128, tokens); }
    for (int64_t tokens : { 127, 128, 129, 255, 256, 257, 600 }) { check(33, 256, tokens); }
    check(640, 2560, 2);
    check(16, 4096, 9, true);
    // where lanes would overflow
    for (int code : { 0, 1, 2, 3, RANDOM }) {
        for (int activation : { 127, -128, RANDOM }) {
            for (int64_t tokens : { 1, 3, 8 }) {
                check(32, 2560, tokens, false, code, activation);
                check(17, 2560, tokens, true, code, activation);
            }
        }
    }
    for (int64_t tokens : { 1, 5 }) { check(16, MAX_COLUMNS, tokens, false, 3, -128); }
}

void check_groups(report & r, const kernels & k, const format & packed) {
    const auto check = [&](int64_t rows, int64_t columns, int64_t tokens, int code = RANDOM, int activation = RANDOM) {
        product(packed, rows, columns, tokens, GROUP_SEGMENT_COLUMNS, code, activation).check(r, k);
    };
    const int64_t group = packed.group_columns;
    for (int64_t rows : { 1, 15, 16, 17, 48, 90 }) {
        for (int64_t n_groups : { 1, 2, 3, 5 }) {
            for (int64_t tokens : { 1, 2, 3, 5, 16, 17, 33 }) { check(rows, n_groups*group, tokens); }
        }
    }
    for (int64_t tokens = 1; tokens <= 40; ++tokens) { check(16, group, tokens); }
    for (int64_t tokens : { 127, 128, 129, 257, 600 }) { check(33, group, tokens); }
    check(160, 2560, 2);
    // where lanes would overflow
    for (int code : { 0, 1, 2, 3, RANDOM }) {
        for (int activation : { 127, -128, RANDOM }) {
            const int stored = packed.bits == 2 || code == RANDOM ? code : packed.bits == 1 ? code/2*2
                             : code*((1 << packed.bits) - 1)/3;
            for (int64_t tokens : { 1, 3, 8 }) { check(17, 512, tokens, stored, activation); }
        }
    }
    check(16, MAX_COLUMNS, 3);
}

void time_multiply(report & r, const kernels & k, const format & packed) {
    const kernels & scalar = (*scalar_kernels())[packed];
    const int64_t segment = packed.group_columns == 0 ? 2560 : GROUP_SEGMENT_COLUMNS;
    for (int64_t tokens : { 1, 8, 128 }) {
        const product p(packed, 64, 2560, tokens, segment);
        buffer<float> y(64*tokens);
        const auto call = [&](const kernels & f, const std::vector<int8_t> & q) {
            const activations a = { q.data(), p.factors.data(), p.offsets.data(), tokens, 2560, 2560/segment };
            f.multiply(p.weights(), a, 0, 4, y.data(), 64);
        };
        const auto ours = arranged(k, p.q, tokens, 2560), scalars = arranged(scalar, p.q, tokens, 2560);
        r.time("64 rows x 2560, tokens: " + std::to_string(tokens), [&] { call(k, ours); },
               [&] { call(scalar, scalars); });
    }
}

}  // namespace

void multiply(report & r, const kernel_set & set) {
    constexpr const char * NAMES[] = { "ternary rows", "ternary groups", "ternary bits", "ternary nibbles", "ternary minima",
                                      "ternary bytes" };
    const kernels * kinds[] = { &set.rows, &set.groups, &set.bits, &set.nibbles, &set.minima, &set.bytes };
    for (int i = 0; i < 6; ++i) {
        const kernels & k = *kinds[i];
        if (!r.begin(NAMES[i], k.multiply)) {
            continue;
        }
        const format * first = nullptr;
        for (const format & packed : FORMATS) {
            if (&set[packed] != &k) { continue; }
            first = first != nullptr ? first : &packed;
            if (packed == ROW_SCALES) { check_rows(r, k); } else { check_groups(r, k, packed); }
            check_not_finite(r, k, packed);
            // no token at all
            const matrix nothing = { nullptr, nullptr, 0, 256, packed };
            k.multiply(nothing, activations{ nullptr, nullptr, nullptr, 0, 256, 8 }, 0, 0, nullptr, 0);
        }
        time_multiply(r, k, *first);
        r.end();
    }
}

}  // namespace check
