// I2_S: the dot product, exact.

#include "check.h"

#include "i2_s/kernels.h"

namespace check {

namespace {

using edgellm::i2_s::MAX_COLUMNS;

// Weight by weight, as i2_s/layout.h has it.
int64_t truth(const uint8_t * row, const int8_t * q, int64_t n) {
    int64_t sum = 0;
    for (int64_t i = 0; i < n; ++i) {
        sum += (row[i/128*32 + i%32] >> (6 - i%128/32*2) & 3)*q[i];
    }
    return sum;
}

constexpr int RANDOM = 999;  // instead of one value everywhere

void check_dot(report & r, decltype(edgellm::i2_s::kernels::dot) dot, int64_t n, int code, int activation) {
    random numbers((uint32_t) n);
    buffer<uint8_t> row(n/4);
    buffer<int8_t>  q(n);
    for (auto & byte : row) { byte = (uint8_t) (code == RANDOM ? numbers.next() : code*0x55); }
    for (auto & a : q) { a = (int8_t) (activation == RANDOM ? numbers.between(-128, 127) : activation); }
    const int64_t expected = truth(row.data(), q.data(), n);
    const int64_t found    = dot(row.data(), q.data(), n);
    r.expect(found == expected, "%lld columns, codes %d, activations %d: %lld, not %lld", (long long) n, code,
             activation, (long long) found, (long long) expected);
}

}  // namespace

void i2_s(report & r, unsigned levels) {
    const auto dot = edgellm::i2_s::best(levels).dot;
    if (!r.begin("i2_s dot", dot)) {
        return;
    }
    for (int64_t n : { 128, 256, 1024, 1152, 2560, 6912, 1 << 17 }) {
        for (int code : { 0, 1, 2, 3, RANDOM }) {
            for (int activation : { 127, -127, -128, RANDOM }) {
                check_dot(r, dot, n, code, activation);
            }
        }
    }
    check_dot(r, dot, MAX_COLUMNS, 3, -128);
    check_dot(r, dot, MAX_COLUMNS, 3, 127);

    const buffer<uint8_t> row(2560/4, 0x64);
    const buffer<int8_t>  q(2560, 33);
    r.time("2560 columns", [&] { keep(dot(row.data(), q.data(), 2560)); },
           [&] { keep(edgellm::i2_s::dot_scalar(row.data(), q.data(), 2560)); });
    r.end();
}

}  // namespace check
