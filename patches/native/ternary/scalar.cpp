// The kernels in plain C++: what the others are measured against, and what runs where nothing better can.

#include "nested.h"

#include <math.h>
#include <string.h>

namespace edgellm::ternary {

namespace {

constexpr int TILE = 4;

template <int N>
struct dot {
    static constexpr int PANELS = 1;

    static void run(const uint8_t * block, int64_t, int64_t n_blocks, const int8_t * q, int32_t (*sums)[PANEL_ROWS]) {
        memset(sums, 0, N*sizeof(*sums));
        for (int64_t b = 0; b < n_blocks; ++b, block += BLOCK_BYTES, q += N*BLOCK_COLUMNS) {
            for (int s = 0; s < 4; ++s) {
                int32_t codes[4][PANEL_ROWS];  // [column][row], so that the inner loops below run over rows
                for (int r = 0; r < PANEL_ROWS; ++r) {
                    for (int j = 0; j < 4; ++j) {
                        codes[j][r] = block[4*r + j] >> 2*s & 3;
                    }
                }
                for (int t = 0; t < N; ++t) {
                    const int8_t * four = q + (s*N + t)*4;
                    for (int r = 0; r < PANEL_ROWS; ++r) {
                        sums[t][r] += codes[0][r]*four[0] + codes[1][r]*four[1] + codes[2][r]*four[2] + codes[3][r]*four[3];
                    }
                }
            }
        }
    }
};

float from_half(uint16_t half) {
    const int   exponent = half >> 10 & 31, fraction = half & 1023;
    const float size     = exponent == 31 ? (fraction != 0 ? NAN : INFINITY)
                         : exponent == 0  ? ldexpf((float) fraction, -24)
                                          : ldexpf((float) (fraction + 1024), exponent - 25);
    return half >> 15 ? -size : size;
}

// What groups.h asks for.
template <int>
struct group_isa {
    static constexpr int STEPS = 8, WIDTH = 1;
    struct sums { int32_t of[PANEL_ROWS]; };
    struct floats { float of[PANEL_ROWS]; };
    struct codes { uint8_t of[PANEL_ROWS][4]; };

    template <int BITS>
    static const uint8_t * load(const uint8_t * blocks) { return blocks; }

    template <int BITS, int STEP>
    static uint8_t plane(const uint8_t * blocks, int i) {
        return blocks[STEP*BITS/8*BLOCK_BYTES + i] >> STEP*BITS%8 & ((1 << BITS) - 1);
    }
    template <int BITS, int STEP>
    static codes field(const uint8_t * blocks) {
        codes c;
        for (int r = 0; r < PANEL_ROWS; ++r) {
            for (int j = 0; j < 4; ++j) {
                const int i = 4*r + j;
                if constexpr (BITS == 8) {
                    c.of[r][j] = blocks[STEP*BLOCK_BYTES + i];
                } else if constexpr (BITS > 4) {
                    const uint8_t * high = blocks + 4*BLOCK_BYTES;
                    c.of[r][j] = plane<4, STEP>(blocks, i) | plane<BITS - 4, STEP>(high, i) << 4;
                } else {
                    c.of[r][j] = BITS == 1 ? 2*plane<1, STEP>(blocks, i) : plane<BITS, STEP>(blocks, i);
                }
            }
        }
        return c;
    }
    static sums start(const int32_t * offset, int64_t) {
        sums s;
        for (int32_t & sum : s.of) { sum = *offset; }
        return s;
    }
    template <int, int STEP, int TOKENS>
    static void add(sums & s, const codes & c, const int8_t * q, int token) {
        const int8_t * four = q + (STEP*TOKENS + token)*4;
        for (int r = 0; r < PANEL_ROWS; ++r) {
            s.of[r] += c.of[r][0]*four[0] + c.of[r][1]*four[1] + c.of[r][2]*four[2] + c.of[r][3]*four[3];
        }
    }
    static floats zero() { return {}; }
    static void add_sums(floats & total, const sums & s, const float * factor, int64_t) {
        for (int r = 0; r < PANEL_ROWS; ++r) { total.of[r] = fmaf((float) s.of[r], *factor, total.of[r]); }
    }
    static void add_part(floats & total, const floats & part, const floats & scales) {
        for (int r = 0; r < PANEL_ROWS; ++r) { total.of[r] = fmaf(part.of[r], scales.of[r], total.of[r]); }
    }
    static floats scales(const uint16_t * halves) {
        floats s;
        for (int r = 0; r < PANEL_ROWS; ++r) { s.of[r] = from_half(halves[r]); }
        return s;
    }
    static void store(const floats & f, float (*y)[PANEL_ROWS]) { memcpy(y, f.of, sizeof(f.of)); }

    // What nested.h asks for.
    static sums none() { return {}; }
    static floats scales(const uint8_t * bytes) { return widened(bytes); }
    static floats scales(const int8_t * bytes) { return widened(bytes); }
    template <typename Byte>
    static floats widened(const Byte * bytes) {
        floats s;
        for (int r = 0; r < PANEL_ROWS; ++r) { s.of[r] = bytes[r]; }
        return s;
    }
    static void add_scaled(floats & part, const sums & s, const floats & scales) {
        for (int r = 0; r < PANEL_ROWS; ++r) { part.of[r] = fmaf((float) s.of[r], scales.of[r], part.of[r]); }
    }
    static sums minima(const uint8_t (*pairs)[PANEL_ROWS][2], const int32_t * offsets) {
        sums s = {};
        for (int i = 0; i < 4; ++i) {
            const int32_t low = (int16_t) offsets[i], high = offsets[i] >> 16;
            for (int r = 0; r < PANEL_ROWS; ++r) { s.of[r] += pairs[i][r][0]*low + pairs[i][r][1]*high; }
        }
        return s;
    }
    static void add_nested(floats & total, const floats & part, const sums & minima, const floats & d,
                           const floats & d_minima, const float * factor) {
        for (int r = 0; r < PANEL_ROWS; ++r) {
            const float scaled = d.of[r]*part.of[r];
            total.of[r] = fmaf(fmaf(-d_minima.of[r], (float) minima.of[r], scaled), *factor, total.of[r]);
        }
    }
    static void add_minima(floats & total, const floats & part, const floats & minima, const int32_t * offset,
                           const float * factor) {
        for (int r = 0; r < PANEL_ROWS; ++r) {
            total.of[r] = fmaf(fmaf(-minima.of[r], (float) *offset, part.of[r]), *factor, total.of[r]);
        }
    }
    static void add_nested(floats & total, const floats & part, const floats & d, const float * factor) {
        for (int r = 0; r < PANEL_ROWS; ++r) { total.of[r] = fmaf(d.of[r]*part.of[r], *factor, total.of[r]); }
    }
};

// The bits of floats without their sign order like the floats, NaN above all.
float absolute_maximum(const float * x, int64_t n) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < n; ++i) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof(bits));
        bits &= 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    float maximum;
    memcpy(&maximum, &largest, sizeof(maximum));
    return maximum;
}

int32_t quantize(const float * x, float s, int8_t * q, int64_t n) {
    int32_t sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        const float scaled  = rintf(x[i]*s);
        const float above   = scaled > -128.0f ? scaled : -128.0f;  // NaN becomes -128, which fits
        const float rounded = above < 127.0f ? above : 127.0f;
        q[i] = (int8_t) (int) rounded;
        sum += q[i];
    }
    return sum;
}

}  // namespace

const kernel_set * scalar_kernels() {
    static const kernel_set k = {
        { 4, TILE, 1, absolute_maximum, quantize, multiply_tiles<rows<dot>::tile, TILE, 1> },
        { 4, TILE, 1, absolute_maximum, quantize, multiply_tiles<groups<group_isa, 2>::tile, TILE, 1> },
        { 4, TILE, 1, absolute_maximum, quantize, multiply_tiles<groups<group_isa, 1>::tile, TILE, 1> },
        { 4, TILE, 1, absolute_maximum, quantize, multiply_tiles<groups<group_isa, 4>::tile, TILE, 1>, 8 },
        {
            nested_kernels<group_isa, TILE>(4, absolute_maximum, quantize),
            nested_kernels<group_isa, TILE>(5, absolute_maximum, quantize),
            nested_kernels<group_isa, TILE>(6, absolute_maximum, quantize),
        },
        { 4, TILE, 1, absolute_maximum, quantize, multiply_tiles<minima<group_isa, 4>::tile, TILE, 1> },
        { 4, TILE, 1, absolute_maximum, quantize, multiply_tiles<groups<group_isa, 8>::tile, TILE, 1>, 128 },
    };
    return &k;
}

}  // namespace edgellm::ternary
