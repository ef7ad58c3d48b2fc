// Plain C++: the truth for all levels.

#include "rows.h"

#include <cmath>
#include <cstring>

namespace edgellm::attention {

namespace {

// As ggml has it: the bits of a half moved into a float, and the range of exponents mended by a product.
float float_of(uint16_t half) {
    const uint32_t sign = (uint32_t) (half & 0x8000) << 16, rest = half & 0x7fff;
    uint32_t bits = rest << 13;
    if (rest >= 0x7c00) {  // infinity and NaN, which becomes quiet, as the CPU has it
        bits |= 0x7f800000u | (rest > 0x7c00 ? 0x400000u : 0);
    }
    float value;
    memcpy(&value, &bits, sizeof(value));
    if (rest < 0x7c00) {
        value *= 0x1p112f;
    }
    return sign != 0 ? -value : value;
}

struct scalar {
    static constexpr int ROWS = 1, VECTORS = 1;
    struct vector { float of[16]; };
    using counts = int64_t;

    template <typename F>
    static vector each(F && f) {
        vector v;
        for (int i = 0; i < 16; ++i) {
            v.of[i] = f(i);
        }
        return v;
    }
    static vector load(const float * p) { return each([&](int i) { return p[i]; }); }
    static vector load_halfs(const uint16_t * p) { return each([&](int i) { return float_of(p[i]); }); }
    static vector load_any(const float * p) { return load(p); }
    static vector load_any(const uint16_t * p) { return load_halfs(p); }
    static void store(float * p, const vector & v) { memcpy(p, v.of, sizeof(v.of)); }
    static vector all(float x) { return each([&](int) { return x; }); }
    static vector fma(const vector & a, const vector & b, const vector & c) {
        return each([&](int i) { return __builtin_fmaf(a.of[i], b.of[i], c.of[i]); });
    }
    static vector mul(const vector & a, const vector & b) { return each([&](int i) { return a.of[i]*b.of[i]; }); }
    static vector sub(const vector & a, const vector & b) { return each([&](int i) { return a.of[i] - b.of[i]; }); }
    static vector larger(const vector & a, const vector & b) {
        return each([&](int i) { return a.of[i] > b.of[i] ? a.of[i] : b.of[i]; });
    }
    static float largest(const vector & v) {
        float most = v.of[0];
        for (float x : v.of) {
            most = x > most ? x : most;
        }
        return most;
    }
    static vector hide(const vector & v, const vector & mask) {
        const float none = -__builtin_inff();
        return each([&](int i) { return mask.of[i] == none ? none : v.of[i]; });
    }
    static vector zero_below(const vector & v, const vector & x, float limit) {
        return each([&](int i) { return x.of[i] < limit ? 0.0f : v.of[i]; });
    }
    static vector times_power_of_two(const vector & v, const vector & bits) {
        uint32_t n[16], to[16];
        memcpy(n, bits.of, sizeof(n));
        memcpy(to, v.of, sizeof(to));
        for (int i = 0; i < 16; ++i) {
            to[i] += n[i] << 23;
        }
        vector result;
        memcpy(result.of, to, sizeof(to));
        return result;
    }
    static counts no_counts() { return 0; }
    static counts count(const vector & v, counts c) {
        for (float x : v.of) {
            c += x >= 0 ? (int64_t) std::nearbyint(x) : 0;
        }
        return c;
    }
    static int64_t sum(counts c) { return c; }

    template <typename Element>
    static void transpose(const Element * rows, size_t stride, Element * out) {
        for (int row = 0; row < 16; ++row) {
            for (int i = 0; i < 16; ++i) {
                out[i*TILE + row] = ((const Element *) ((const char *) rows + row*stride))[i];
            }
        }
    }
};

}  // namespace

kernels scalar_kernels() {
    return kernels_of<scalar>();
}

}  // namespace edgellm::attention
