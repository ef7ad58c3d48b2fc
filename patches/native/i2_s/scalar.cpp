// The dot product in plain C++, as the layout's description has it.

#include "kernels.h"
#include "layout.h"

namespace edgellm::i2_s {

int32_t dot_scalar(const uint8_t * row, const int8_t * q, int64_t n) {
    int32_t total = 0;
    for (int64_t i = 0; i < n; i += I2_S_BLOCK_WEIGHTS, row += I2_S_BLOCK_BYTES, q += I2_S_BLOCK_WEIGHTS) {
        for (int p = 0; p < I2_S_BLOCK_BYTES; ++p) {
            const int byte = row[p];
            total += (byte >> 6)*q[p] + (byte >> 4 & 3)*q[32 + p] + (byte >> 2 & 3)*q[64 + p] + (byte & 3)*q[96 + p];
        }
    }
    return total;
}

}  // namespace edgellm::i2_s
