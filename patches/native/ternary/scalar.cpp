// The kernels in plain C++: what the others are measured against, and what runs where nothing better can.

#include "finish.h"

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

const kernels * scalar_kernels() {
    static const kernels k = { "scalar", 4, TILE, 1, absolute_maximum, quantize, multiply_tiles<dot, TILE, 1> };
    return &k;
}

}  // namespace edgellm::ternary
