#include "layout.h"

#include <assert.h>
#include <string.h>

float i2_s_read_scale(const void * tail) {
    float scale;
    memcpy(&scale, tail, sizeof(scale));
    return scale;
}

void i2_s_dequantize(const void * codes, float scale, float * y, int64_t n) {
    assert(n % I2_S_BLOCK_WEIGHTS == 0);
    const uint8_t * block = codes;
    for (int64_t i = 0; i < n; i += I2_S_BLOCK_WEIGHTS, block += I2_S_BLOCK_BYTES) {
        for (int quarter = 0; quarter < 4; ++quarter) {
            for (int p = 0; p < I2_S_BLOCK_BYTES; ++p) {
                const int code = (block[p] >> (6 - 2*quarter)) & 3;
                y[i + 32*quarter + p] = (float) (code - 1) * scale;
            }
        }
    }
}
