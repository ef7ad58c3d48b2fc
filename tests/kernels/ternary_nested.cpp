// K-quants with nested scales: packed from the bytes of files and multiplied, bit for bit, against their description.

#include "ternary.h"

#include "half.h"

#include "ternary/activations.h"
#include "ternary/pack.h"

#include <cmath>
#include <cstring>

namespace check {

namespace {

using namespace edgellm::ternary;

constexpr int64_t GROUP = 256;

// What the codes, scales and activations of a product are: at random, or the largest everywhere.
enum class values { RANDOM, LARGEST, MOST_NEGATIVE };

// A block, spelled out: weight = d * scale * (code - zero) - dmin * minimum.
struct plain_block {
    int   columns, zero;  // that share a scale; the code of the weight 0
    int   codes[GROUP], scales[16], minima[16];
    float d, dmin;
};

// As ggml describes them: d, dmin, eight scales and minima of six bits, of five bits 32 bytes of fifth bits, nibbles.
plain_block read_with_minima(const uint8_t * bytes, int bits) {
    uint16_t halves[2];
    memcpy(halves, bytes, sizeof(halves));
    plain_block b = { 32, 0, {}, {}, {}, half_to_float(halves[0]), half_to_float(halves[1]) };
    const uint8_t * six = bytes + 4, * fifth = bytes + 16, * nibbles = bits == 5 ? bytes + 48 : bytes + 16;
    for (int i = 0; i < GROUP; ++i) {
        b.codes[i] = nibbles[i/64*32 + i%32] >> i%64/32*4 & 15;
        if (bits == 5) { b.codes[i] += (fifth[i%32] >> i/32 & 1)*16; }
    }
    for (int p = 0; p < 8; ++p) {
        b.scales[p] = p < 4 ? six[p] & 63 : (six[p + 4] & 15) + (six[p - 4] >> 6)*16;
        b.minima[p] = p < 4 ? six[p + 4] & 63 : (six[p + 4] >> 4) + (six[p] >> 6)*16;
    }
    return b;
}

// 128 bytes of nibbles, 64 of pairs of high bits, 16 signed scales, d.
plain_block read_q6_k(const uint8_t * bytes) {
    uint16_t half;
    memcpy(&half, bytes + 208, sizeof(half));
    plain_block b = { 16, 32, {}, {}, {}, half_to_float(half), 0.0f };
    for (int i = 0; i < GROUP; ++i) {
        const int in_half = i%128, byte = in_half%64 + i/128*64;
        b.codes[i] = (bytes[byte] >> in_half/64*4 & 15) + (bytes[128 + i/128*32 + i%32] >> in_half/32*2 & 3)*16;
    }
    for (int p = 0; p < 16; ++p) { b.scales[p] = (int8_t) bytes[192 + p]; }
    return b;
}

// A tensor and the activations of some tokens.
struct product {
    ggml_type type;
    int64_t   n_rows, n_columns, n_tokens;
    values    kind;
    buffer<uint8_t> bytes;   // [row][group], as files have them
    buffer<uint8_t> panels;
    buffer<float>   x;       // [token][column]

    product(ggml_type type, int64_t rows, int64_t columns, int64_t tokens, values kind = values::RANDOM)
        : type(type), n_rows(rows), n_columns(columns), n_tokens(tokens), kind(kind),
          bytes(rows*(int64_t) ggml_row_size(type, columns)), panels((int64_t) packed_size(type, rows, columns), 0xaa),
          x(tokens*columns) {
        random numbers((uint32_t) (rows*columns + tokens));
        for (auto & byte : bytes) { byte = kind == values::RANDOM ? (uint8_t) numbers.next() : 0xff; }
        const auto half = [&] { return (uint16_t) (0x2000 + numbers.next()%0x2000 + numbers.next()%2*0x8000); };
        const int64_t size = (int64_t) ggml_row_size(type, GROUP);
        for (int64_t b = 0; b < bytes.size(); b += size) {
            const uint16_t d = half(), dmin = numbers.next()%7 == 0 ? 0 : half();
            memcpy(&bytes[b + (type == GGML_TYPE_Q6_K ? 208 : 0)], &d, sizeof(d));
            if (type == GGML_TYPE_Q6_K && kind != values::RANDOM) { memset(&bytes[b + 192], 0x80, 16); }
            if (type != GGML_TYPE_Q6_K) { memcpy(&bytes[b + 2], &dmin, sizeof(dmin)); }
        }
        for (auto & v : x) {
            v = kind == values::RANDOM ? numbers.uniform() : kind == values::LARGEST ? 1.0f : -1.0f;
        }
        edgellm::ternary::pack(type, bytes.data(), rows, columns, panels.data());
    }

    int bits() const { return type == GGML_TYPE_Q4_K ? 4 : type == GGML_TYPE_Q5_K ? 5 : 6; }
    matrix weights() const { return packed_matrix({ bits(), GROUP, true }, panels.data(), n_rows, n_columns); }
    plain_block block(int64_t row, int64_t g) const {
        const uint8_t * at = bytes.data() + (row*(n_columns/GROUP) + g)*(int64_t) ggml_row_size(type, GROUP);
        return type == GGML_TYPE_Q6_K ? read_q6_k(at) : read_with_minima(at, bits());
    }

    // The formulas of nested.h.
    float truth(int64_t token, int64_t row) const {
        float total = 0;
        for (int64_t g = 0; g < n_columns/GROUP; ++g) {
            const plain_block b = block(row, g);
            const float * values = x.data() + token*n_columns + g*GROUP;
            float most = 0, part = 0;
            for (int64_t i = 0; i < GROUP; ++i) { most = std::fmax(most, std::fabs(values[i])); }
            const float s = scale_of(most);
            int64_t minima = 0;
            for (int64_t p = 0; p < GROUP/b.columns; ++p) {
                int64_t sum = 0, sum_q = 0;
                for (int64_t i = p*b.columns; i < (p + 1)*b.columns; ++i) {
                    const int q = (int) std::fmin(std::nearbyint(values[i]*s), 127.0f);
                    sum += (b.codes[i] - b.zero)*q, sum_q += q;
                }
                part = std::fma((float) sum, (float) b.scales[p], part);
                minima += b.minima[p]*sum_q;
            }
            const float scaled = b.d*part;
            total = std::fma(b.zero != 0 ? scaled : std::fma(-b.dmin, (float) minima, scaled), 1.0f/s, total);
        }
        return total;
    }

    void multiply(const kernels & k, int64_t step, float * y, int64_t stride) const {
        buffer<uint8_t> work((int64_t) quantizer::work_size(k, n_tokens, n_columns, GROUP, 1), 0xaa);
        const quantizer quantize(k, work.data(), n_tokens, n_columns, GROUP, 1);
        for (int64_t t = 0; t < n_tokens; ++t) { quantize.add(t, x.data() + t*n_columns, 0); }
        quantize.pad();
        const matrix w = weights();
        for (int64_t first = 0; first < w.n_panels(); first += step) {
            k.multiply(w, quantize.result(), first, std::min(first + step, w.n_panels()), y, stride);
        }
    }

    void check(report & r, const kernels & k) const {
        constexpr float UNTOUCHED = 12345.0f;
        const int64_t stride = n_rows + 5;
        for (int64_t step : { (int64_t) 3, weights().n_panels() }) {
            buffer<float> y(n_tokens*stride, UNTOUCHED);
            multiply(k, step, y.data(), stride);
            for (int64_t i = 0; i < y.size(); ++i) {
                const float expected = i%stride < n_rows ? truth(i/stride, i%stride) : UNTOUCHED;
                if (!r.expect(same(&y[i], &expected, sizeof(float)),
                              "%d bits, %lld rows x %lld columns x %lld tokens, values %d: %g, not %g, at token %lld, row %lld",
                              bits(), (long long) n_rows, (long long) n_columns, (long long) n_tokens, (int) kind, y[i], expected,
                              (long long) (i/stride), (long long) (i%stride))) { return; }
            }
        }
    }
};

void check_all(report & r, const kernels & k, ggml_type type) {
    for (int64_t rows : { 1, 15, 16, 17, 50 }) {
        for (int64_t columns : { 256, 512, 1280 }) {
            for (int64_t tokens : { 1, 2, 3, 8, 9, 17 }) { product(type, rows, columns, tokens).check(r, k); }
        }
    }
    for (int64_t tokens = 1; tokens <= 20; ++tokens) { product(type, 16, 256, tokens).check(r, k); }
    for (int64_t tokens : { 127, 128, 129, 260 }) { product(type, 33, 256, tokens).check(r, k); }
    for (values kind : { values::LARGEST, values::MOST_NEGATIVE }) {
        for (int64_t tokens : { 1, 3, 8 }) { product(type, 17, 2560, tokens, kind).check(r, k); }
    }
    product(type, 16, MAX_COLUMNS, 2).check(r, k);
    product(type, 1030, 1024, 1).check(r, k);  // packed by several threads
}

void time_multiply(report & r, const kernels & k, const kernels & scalar, ggml_type type) {
    for (int64_t tokens : { 1, 8, 128 }) {
        const product p(type, 64, 2560, tokens);
        buffer<float> y(64*tokens);
        r.time("64 rows x 2560, tokens: " + std::to_string(tokens), [&] { p.multiply(k, 4, y.data(), 64); },
               [&] { p.multiply(scalar, 4, y.data(), 64); });
    }
}

}  // namespace

void nested(report & r, const kernel_set & set) {
    constexpr const char * NAMES[] = { "ternary q4_k", "ternary q5_k", "ternary q6_k" };
    constexpr ggml_type TYPES[] = { GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K };
    for (int i = 0; i < 3; ++i) {
        const kernels & k = set.nested[i];
        if (r.begin(NAMES[i], k.multiply)) {
            check_all(r, k, TYPES[i]);
            time_multiply(r, k, scalar_kernels()->nested[i], TYPES[i]);
            r.end();
        }
    }
}

}  // namespace check
