// Holds i2_s_dot() against a sum that follows the layout's description weight by weight; built by
// test_i2_s_dot.py once for each instruction set.

#include "i2_s_dot.h"

#include <cstdio>
#include <random>
#include <vector>

static int64_t plain_sum(const std::vector<uint8_t> & codes, const std::vector<int8_t> & q) {
    int64_t sum = 0;
    for (size_t i = 0; i < q.size(); ++i) {
        const uint8_t byte = codes[i/128*32 + i%32];
        sum += (byte >> (6 - i%128/32*2) & 3) * q[i];
    }
    return sum;
}

int main() {
    std::mt19937 random(1);
    int wrong = 0;
    for (int64_t n : {128, 256, 1024, 1152, 2560, 6912, 1 << 17, 1 << 22}) {
        for (int code : {0x00, 0x55, 0xaa, 0xff, -1}) {         // all 0, 1, 2, 3, or random
            for (int activation : {127, -127, -128, 999}) {     // 999: random
                if (n == 1 << 22 && (code != 0xff || activation != -128)) {
                    continue;  // the largest sum at the greatest width, and nothing else that takes long
                }
                std::vector<uint8_t> codes(n/4);
                std::vector<int8_t>  q(n);
                for (auto & c : codes) { c = (uint8_t) (code < 0 ? random() : code); }
                for (auto & a : q)     { a = (int8_t) (activation == 999 ? (int) (random() % 256) - 128 : activation); }
                const int64_t expected = plain_sum(codes, q);
                const int64_t actual   = edgellm::i2_s_dot(codes.data(), q.data(), n);
                if (actual != expected) {
                    printf("n %lld, codes %02x, activations %d: %lld instead of %lld\n", (long long) n, code & 0xff,
                           activation, (long long) actual, (long long) expected);
                    ++wrong;
                }
            }
        }
    }
    return wrong > 0;
}
