// Products of quantised rows with a few tokens: the truth in double, and a token alone against the same token in
// company.

#include "check.h"
#include "half.h"

#include "few/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace check {

namespace {

using namespace edgellm::few;

// Codes and activations of a case: at random, or as extreme as the types let them be.
enum class fill { RANDOM, LARGEST, SMALLEST, ZERO };

constexpr const char * NAMES[] = { "random", "largest", "smallest", "zero" };

// A half of moderate size, or the largest of all.
uint16_t scale_half(random & numbers, fill f) {
    return f == fill::LARGEST ? 0x7bff : (uint16_t) ((numbers.next() & 0x8000) | (0x2000 + numbers.next()%0x1000));
}

int pick(random & numbers, fill f, int low, int high) {
    return f == fill::RANDOM ? numbers.between(low, high) : f == fill::LARGEST ? high : f == fill::SMALLEST ? low : 0;
}

// A result, and the sum of the magnitudes of all that is added up to it, in whatever order: what rounding goes by.
struct sum {
    double value = 0, magnitude = 0;
};

// Blocks of 32, as ggml-common.h has them: HEADER bytes of halfs, then codes.
template <int HEADER, int BITS, int OFFSET>
struct blocks32 {  // a weight is d * code + m
    static constexpr int64_t UNIT  = 64;
    static constexpr int64_t BYTES = HEADER + 4*BITS;
    static constexpr bool    HAS_M = HEADER == 4;

    static int64_t row_bytes(int64_t n_cols) { return n_cols/32*BYTES; }
    static int64_t token_bytes(int64_t n_cols) { return q8_0_token::bytes(n_cols); }

    static void fill_rows(uint8_t * rows, int64_t n_bytes, fill f, random & numbers) {
        for (int64_t at = 0; at < n_bytes; at += BYTES) {
            for (int i = 0; i < HEADER; i += 2) {
                const uint16_t half = scale_half(numbers, f);
                memcpy(rows + at + i, &half, sizeof(half));
            }
            for (int i = HEADER; i < BYTES; ++i) {
                const int low = BITS == 8 ? -128 : 0, high = BITS == 8 ? 127 : 15;
                const int code = pick(numbers, f, low, high);
                rows[at + i] = (uint8_t) (BITS == 8 ? code : code | pick(numbers, f, low, high) << 4);
            }
        }
    }

    // Column c of a token lies where kernels.h says: two blocks side by side, four of each in turn.
    static int64_t place(int64_t c) { return c/64*64 + c%32/4*8 + c%64/32*4 + c%4; }

    static void fill_token(void * data, int64_t n_cols, fill f, random & numbers) {
        const q8_0_token token(data, n_cols);
        for (int64_t b = 0; b < q8_0_token::padded(n_cols); ++b) {
            int total = 0;
            for (int64_t c = 32*b; c < std::min(32*b + 32, n_cols); ++c) {
                total += token.q[place(c)] = (int8_t) pick(numbers, f, -127, 127);
            }
            token.d[b]   = b < n_cols/32 ? std::fabs(numbers.uniform()) : 0.0f;
            token.sum[b] = token.d[b]*total;
        }
    }

    static sum product(const uint8_t * row, int64_t n_cols, const void * data) {
        const q8_0_token token((void *) data, n_cols);
        sum y;
        for (int64_t b = 0; b < n_cols/32; ++b, row += BYTES) {
            uint16_t halfs[2];
            memcpy(halfs, row, HEADER);
            const float d = half_to_float(halfs[0]), m = HAS_M ? half_to_float(halfs[1]) : -(float) OFFSET*d;
            int64_t dot = 0, magnitude = 0;
            for (int i = 0; i < 32; ++i) {
                const int byte = row[HEADER + (BITS == 8 ? i : i%16)];
                // 8 bits are signed; they count from -OFFSET
                const int term = (BITS == 8 ? (int8_t) byte + OFFSET : byte >> i/16*4 & 15)*token.q[place(32*b + i)];
                dot += term, magnitude += std::abs(term);
            }
            y.value     += (double) d*token.d[b]*dot + (double) m*token.sum[b];
            y.magnitude += std::fabs((double) d*token.d[b]*magnitude) + std::fabs((double) m*token.sum[b]);
        }
        return y;
    }
};

// Q6_K, as ggml-common.h has it: ql[128], qh[64], scales[16], d.
struct q6_k {
    static constexpr int64_t UNIT = 256, BYTES = 210;

    static int64_t row_bytes(int64_t n_cols) { return n_cols/256*BYTES; }
    static int64_t token_bytes(int64_t n_cols) { return n_cols/256*(int64_t) sizeof(q8_k_block); }

    static void fill_rows(uint8_t * rows, int64_t n_bytes, fill f, random & numbers) {
        for (int64_t at = 0; at < n_bytes; at += BYTES) {
            for (int i = 0; i < 192; ++i) { rows[at + i] = (uint8_t) pick(numbers, f, 0, 255); }
            for (int i = 192; i < 208; ++i) { rows[at + i] = (uint8_t) pick(numbers, f, -128, 127); }
            const uint16_t half = scale_half(numbers, f);
            memcpy(rows + at + 208, &half, sizeof(half));
        }
    }

    static void fill_token(void * data, int64_t n_cols, fill f, random & numbers) {
        for (int64_t b = 0; b < n_cols/256; ++b) {
            q8_k_block & block = ((q8_k_block *) data)[b];
            for (int i = 0; i < 16; ++i) { block.sums[i] = 0; }
            for (int i = 0; i < 256; ++i) {
                block.q[i] = (int8_t) pick(numbers, f, -127, 127);
                block.sums[i/16] = (int16_t) (block.sums[i/16] + block.q[i]);
            }
            block.d = numbers.uniform();
        }
    }

    static sum product(const uint8_t * row, int64_t n_cols, const void * data) {
        sum y;
        for (int64_t b = 0; b < n_cols/256; ++b, row += BYTES) {
            const q8_k_block & token = ((const q8_k_block *) data)[b];
            uint16_t half;
            memcpy(&half, row + 208, sizeof(half));
            int64_t dot = 0, magnitude = 0;
            for (int i = 0; i < 256; ++i) {
                const int in = i%128, low = row[i/128*64 + in%64] >> in/64*4 & 15;
                const int high = row[128 + i/128*32 + in%32] >> in/32*2 & 3;
                const int code = low | high << 4, times = token.q[i]*(int8_t) row[192 + i/16];
                dot += (code - 32)*times, magnitude += (code + 32)*std::abs(times);
            }
            y.value     += (double) half_to_float(half)*token.d*dot;
            y.magnitude += std::fabs((double) half_to_float(half)*token.d*magnitude);
        }
        return y;
    }
};

using q4_0 = blocks32<2, 4, 8>;
using q4_1 = blocks32<4, 4, 0>;
using q8_0 = blocks32<2, 8, 128>;

template <typename Format>
struct product {
    int64_t n_rows, n_cols;
    int     n_tokens;
    fill    weights_fill, tokens_fill;
    buffer<uint8_t> rows, tokens;

    product(int64_t n_rows, int64_t n_cols, int n_tokens, fill weights_fill, fill tokens_fill)
        : n_rows(n_rows), n_cols(n_cols), n_tokens(n_tokens), weights_fill(weights_fill), tokens_fill(tokens_fill),
          rows(n_rows*Format::row_bytes(n_cols)), tokens(n_tokens*Format::token_bytes(n_cols)) {
        random numbers((uint32_t) (n_rows*n_cols + n_tokens));
        Format::fill_rows(rows.data(), rows.size(), weights_fill, numbers);
        for (int t = 0; t < n_tokens; ++t) { Format::fill_token(token(t), n_cols, tokens_fill, numbers); }
    }

    void * token(int t) { return tokens.data() + t*Format::token_bytes(n_cols); }

    bool is(report & r, bool right, const char * what) {
        return r.expect(right, "%lld rows x %lld columns x %d tokens, weights %s, tokens %s: %s", (long long) n_rows,
                        (long long) n_cols, n_tokens, NAMES[(int) weights_fill], NAMES[(int) tokens_fill], what);
    }

    void check(report & r, multiply_rows multiply) {
        constexpr float UNTOUCHED = 12345.0f;
        const int64_t stride = n_rows + 3, half = n_rows/2;
        buffer<float> y(n_tokens*stride, UNTOUCHED), alone(n_rows);
        multiply(rows.data(), n_cols, 0, half, tokens.data(), n_tokens, y.data(), stride);
        multiply(rows.data(), n_cols, half, n_rows, tokens.data(), n_tokens, y.data(), stride);
        for (int t = 0; t < n_tokens; ++t) {
            multiply(rows.data(), n_cols, 0, n_rows, token(t), 1, alone.data(), n_rows);
            is(r, memcmp(alone.data(), &y[t*stride], n_rows*sizeof(float)) == 0, "a token differs from itself alone");
            for (int64_t i = n_rows; i < stride; ++i) { is(r, y[t*stride + i] == UNTOUCHED, "writes too far"); }
            for (int64_t i = 0; i < n_rows; ++i) {
                const sum expected = Format::product(rows.data() + i*Format::row_bytes(n_cols), n_cols, token(t));
                // each term is rounded a few times, then so are the sums of a lane and those of sixteen lanes
                const double bound = std::ldexp(expected.magnitude, -24)*(double) (n_cols/64 + 16);
                is(r, std::fabs(y[t*stride + i] - expected.value) <= bound, "a sum is wrong");
            }
        }
    }
};

template <typename Format>
void truth(const void * weights, int64_t n_cols, int64_t first, int64_t last, const void * tokens, int n_tokens,
           float * y, int64_t y_stride) {
    for (int t = 0; t < n_tokens; ++t) {
        const void * token = (const uint8_t *) tokens + t*Format::token_bytes(n_cols);
        for (int64_t i = first; i < last; ++i) {
            const uint8_t * row = (const uint8_t *) weights + i*Format::row_bytes(n_cols);
            y[t*y_stride + i] = (float) Format::product(row, n_cols, token).value;
        }
    }
}

template <typename Format>
void check_format(report & r, const char * name, multiply_rows multiply) {
    if (!r.begin(name, multiply)) {
        return;
    }
    for (int n_tokens = 1; n_tokens <= MAX_TOKENS; ++n_tokens) {
        for (int64_t units : { 1, 2, 3, 9 }) {
            product<Format>(5, units*Format::UNIT, n_tokens, fill::RANDOM, fill::RANDOM).check(r, multiply);
        }
    }
    product<Format>(1, Format::UNIT, 1, fill::RANDOM, fill::RANDOM).check(r, multiply);
    for (fill weights : { fill::RANDOM, fill::LARGEST, fill::SMALLEST, fill::ZERO }) {
        for (fill tokens : { fill::RANDOM, fill::LARGEST, fill::SMALLEST, fill::ZERO }) {
            product<Format>(3, 1536, 3, weights, tokens).check(r, multiply);
        }
    }
    product<Format>(2, 32*q8_0_token::MOST_BLOCKS, 2, fill::RANDOM, fill::RANDOM).check(r, multiply);
    for (int n_tokens : { 1, 8 }) {
        product<Format> p(64, 1536, n_tokens, fill::RANDOM, fill::RANDOM);
        buffer<float> y(64*n_tokens);
        const auto call = [&](multiply_rows f) {
            f(p.rows.data(), 1536, 0, 64, p.tokens.data(), n_tokens, y.data(), 64);
        };
        r.time("64 rows x 1536, tokens: " + std::to_string(n_tokens), [&] { call(multiply); },
               [&] { call(truth<Format>); });
    }
    r.end();
}

}  // namespace

void few(report & r, unsigned levels) {
    const kernels k = best(levels);
    check_format<q4_0>(r, "few q4_0", k.q4_0);
    check_format<q4_1>(r, "few q4_1", k.q4_1);
    check_format<q8_0>(r, "few q8_0", k.q8_0);
    check_format<q6_k>(r, "few q6_k", k.q6_k);
}

}  // namespace check
