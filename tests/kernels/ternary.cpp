// The ternary kernels, bit for bit: activations; products and packing have files of their own.

#include "check.h"

#include "ternary.h"

#include "ternary/activations.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace check {

namespace {

using namespace edgellm::ternary;

float maximum_truth(const float * x, int64_t n) {
    float most = 0;
    for (int64_t i = 0; i < n; ++i) {
        if (std::isnan(x[i])) { return NAN; }
        most = std::fmax(most, std::fabs(x[i]));
    }
    return most;
}

int32_t quantize_truth(const float * x, float s, int8_t * q, int64_t n) {
    int32_t sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        const float scaled = std::nearbyint(x[i]*s);
        sum += q[i] = (int8_t) (scaled >= 127.0f ? 127 : scaled > -128.0f ? (int) scaled : -128);  // NaN: -128
    }
    return sum;
}

// Kind 0: ordinary floats, 1: zeros, 2: halves to be rounded, denormals, values out of range.
void fill_floats(buffer<float> & x, int kind) {
    random numbers((uint32_t) (x.size() + kind));
    constexpr float ODD[] = { 0.5f, -0.5f, 1.5f, 2.5f, -0.0f, 1e-40f, -127.5f, 126.5f, 128.5f, -129.0f, 3e38f, -3e38f };
    for (auto & v : x) { v = kind == 0 ? numbers.uniform() : kind == 1 ? 0.0f : ODD[numbers.next()%12]; }
}

void check_maximum(report & r, decltype(kernels::absolute_maximum) maximum) {
    for (int64_t n : { 16, 32, 48, 64, 256, 272, 2560, 6912 }) {
        for (int kind = 0; kind < 3; ++kind) {
            buffer<float> x(n);
            fill_floats(x, kind);
            const float found = maximum(x.data(), n), expected = maximum_truth(x.data(), n);
            r.expect(same(&found, &expected, sizeof(float)), "%lld floats of kind %d: %g, not %g", (long long) n, kind,
                     found, expected);
        }
        for (int64_t at = 0; at < n; at += n < 300 ? 1 : 97) {
            for (float value : { -7.0f, 1e-42f, INFINITY, -INFINITY, NAN }) {
                buffer<float> x(n, std::fabs(value) < 1 ? 0.0f : -1.0f);
                x[at] = value;
                const float found = maximum(x.data(), n);
                r.expect(std::isnan(value) ? std::isnan(found) : found == std::fabs(value),
                         "%lld floats, %g at %lld: %g", (long long) n, value, (long long) at, found);
            }
        }
    }
}

void check_quantize(report & r, decltype(kernels::quantize) quantize) {
    for (int64_t n : { 16, 32, 48, 64, 80, 256, 272, 2560, 6912 }) {
        for (int kind = 0; kind < 3; ++kind) {
            for (float s : { 1.0f, 127.0f, 0.3f, 1e7f, 0.0f, INFINITY, NAN }) {
                buffer<float> x(n);
                fill_floats(x, kind);
                if (kind == 2) { x[n/2] = NAN, x[n - 1] = INFINITY, x[0] = -INFINITY; }
                buffer<int8_t> q(n), expected(n);
                const int32_t sum   = quantize(x.data(), s, q.data(), n);
                const int32_t truth = quantize_truth(x.data(), s, expected.data(), n);
                r.expect(sum == truth && same(q.data(), expected.data(), n), "%lld floats of kind %d, scale %g",
                         (long long) n, kind, s);
            }
        }
    }
}

// The quantizer that lays activations out for the kernels.
void check_activations(report & r, const kernels & k, int64_t n_tokens, int64_t n_columns, int64_t segment) {
    const int64_t n_segments = n_columns/segment;
    buffer<float> x(n_tokens*n_columns);
    fill_floats(x, 0);
    buffer<uint8_t> work((int64_t) quantizer::work_size(k, n_tokens, n_columns, segment, 1), 0xaa);
    const quantizer quantize(k, work.data(), n_tokens, n_columns, segment, 1);
    for (int64_t t = 0; t < n_tokens; ++t) { quantize.add(t, x.data() + t*n_columns, 0); }
    quantize.pad();
    const activations a = quantize.result();
    buffer<int8_t> q(n_tokens*n_columns);
    bool right = a.n_segments == n_segments;
    for (int64_t i = 0; i < n_tokens*n_segments; ++i) {
        const float * values = x.data() + i*segment;
        const float s = scale_of(maximum_truth(values, segment));
        right = right && a.factors[i] == (n_segments > 1 ? 1.0f/s : s) &&
                a.offsets[i] == -k.zero*quantize_truth(values, s, q.data() + i*segment, segment);
    }
    const auto expected = arranged(k, q, n_tokens, n_columns);
    r.expect(right && same(a.q, expected.data(), (int64_t) expected.size()), "%lld tokens x %lld columns, segments of %lld",
             (long long) n_tokens, (long long) n_columns, (long long) segment);
}

void check_activations(report & r, const kernels & k) {
    for (int64_t n_tokens : { 1, 2, 3, 8, 9, 16, 17, 33 }) {
        for (int64_t n_columns : { 64, 320, 512 }) {
            check_activations(r, k, n_tokens, n_columns, n_columns);
            check_activations(r, k, n_tokens, n_columns, GROUP_SEGMENT_COLUMNS);
        }
        check_activations(r, k, n_tokens, 512, SEGMENT_COLUMNS);
    }
}

void time_activations(report & r, const kernels & k) {
    buffer<float> x(2560);
    buffer<int8_t> q(2560);
    fill_floats(x, 0);
    const kernels & scalar = scalar_kernels()->rows;
    const auto call = [&](const kernels & f) {
        f.quantize(x.data(), scale_of(f.absolute_maximum(x.data(), 2560)), q.data(), 2560);
    };
    r.time("maximum and int8, 2560 columns", [&] { call(k); }, [&] { call(scalar); });
}

}  // namespace

void ternary(report & r, unsigned levels) {
    const kernel_set set = best(levels);
    const kernels & k = set.rows;
    if (r.begin("ternary absolute_maximum", k.absolute_maximum)) {
        check_maximum(r, k.absolute_maximum);
        r.end();
    }
    if (r.begin("ternary quantize", k.quantize)) {
        check_quantize(r, k.quantize);
        time_activations(r, k);
        r.end();
    }
    if (r.begin("ternary activations", k.multiply)) {
        for (const kernels * one : { &set.rows, &set.groups, &set.bits, &set.nibbles }) {
            if (one->multiply != nullptr) { check_activations(r, *one); }
        }
        r.end();
    }
    multiply(r, set);
    nested(r, set);
    experts(r, set);
    pack(r);
}

}  // namespace check
