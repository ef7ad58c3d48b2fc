#include "activations.h"

#include <algorithm>
#include <cstring>

namespace edgellm::ternary {

namespace {

constexpr int64_t ALIGNMENT = 64;

int64_t align(int64_t n) {
    return (n + ALIGNMENT - 1)/ALIGNMENT*ALIGNMENT;
}

// Tokens with those that fill up the last tile. A single token is never padded: its row lies as it is.
int64_t padded(const kernels & k, int64_t n_tokens) {
    return n_tokens == 1 ? 1 : (n_tokens + k.padding - 1)/k.padding*k.padding;
}

int64_t n_offsets(const kernels & k, int64_t n_columns, int64_t n_segments) {
    return k.offset_columns == 0 ? n_segments : n_columns/k.offset_columns;
}

template <int INTERLEAVE>
void scatter(const int8_t * row, int64_t n_columns, int64_t step, int8_t * target) {
    for (int64_t i = 0; i < n_columns; i += INTERLEAVE, target += step) {
        memcpy(target, row + i, INTERLEAVE);
    }
}

}  // namespace

kernels one_by_one(const kernels & k) {
    kernels single = k;
    single.tile = single.padding = 1;
    return single;
}

size_t quantizer::work_size(const kernels & k, int64_t n_tokens, int64_t n_columns, int64_t segment_columns,
                            int n_threads) {
    const int64_t n = padded(k, n_tokens), n_segments = n_columns/segment_columns;
    return align(n*n_segments*sizeof(float)) + align(n*n_offsets(k, n_columns, n_segments)*sizeof(int32_t)) +
           n*n_columns + n_threads*n_columns + ALIGNMENT;
}

quantizer::quantizer(const kernels & k, void * buffer, int64_t n_tokens, int64_t n_columns,
                     int64_t segment_columns, int n_threads)
    : k_(k), n_tokens_(n_tokens), n_columns_(n_columns), n_segments_(n_columns/segment_columns),
      n_offsets_(n_offsets(k, n_columns, n_segments_)) {
    const int64_t n = padded(k, n_tokens);
    uint8_t * p = (uint8_t *) align((int64_t) buffer);
    factors_ = (float *) p;
    offsets_ = (int32_t *) (p + align(n*n_segments_*sizeof(float)));
    rows_    = (int8_t *) offsets_ + align(n*n_offsets_*sizeof(int32_t));
    q_       = rows_ + n_threads*n_columns;
}

activations quantizer::result() const {
    return { q_, factors_, offsets_, n_tokens_, n_columns_, n_segments_ };
}

int64_t quantizer::width_of(int64_t tile) const {
    const int64_t left = padded(k_, n_tokens_) - tile*k_.tile;
    return left < k_.tile ? left : k_.tile;
}

void quantizer::add(int64_t token, const float * x, int thread) const {
    int8_t * row = rows_ + thread*n_columns_;
    const int64_t n = n_columns_/n_segments_;
    for (int64_t i = 0; i < n_segments_; ++i) {
        const float   s  = scale_of(k_.absolute_maximum(x + i*n, n));
        factors_[token*n_segments_ + i] = n_segments_ == 1 && k_.offset_columns == 0 ? s : 1.0f/s;
        const int64_t width = n*n_segments_/n_offsets_;
        for (int64_t c = i*n; c < (i + 1)*n; c += width) {
            offsets_[token*n_offsets_ + c/width] = offset_of(x + c, s, row + c, width);
        }
    }
    place(token, row);
}

int32_t quantizer::offset_of(const float * x, float s, int8_t * q, int64_t n) const {
    if (k_.zero != 0) {
        return -k_.zero*k_.quantize(x, s, q, n);
    }
    const uint32_t low = k_.quantize(x, s, q, n/2), high = k_.quantize(x + n/2, s, q + n/2, n/2);
    return (int32_t) ((low & 0xffff) | high << 16);
}

activations quantizer::row(int64_t token) const {
    const float * factors = factors_ + token*n_segments_;
    return { q_ + token*n_columns_, factors, offsets_ + token*n_offsets_, 1, n_columns_, n_segments_ };
}

void quantizer::copy(int64_t token, const activations & rows, int64_t row) const {
    memcpy(factors_ + token*n_segments_, rows.factors + row*n_segments_, n_segments_*sizeof(float));
    memcpy(offsets_ + token*n_offsets_, rows.offsets + row*n_offsets_, n_offsets_*sizeof(int32_t));
    place(token, rows.q + row*n_columns_);
}

void quantizer::place(int64_t token, const int8_t * row) const {
    const int64_t tile  = token/k_.tile;
    const int64_t width = width_of(tile);
    int8_t * target = q_ + tile*k_.tile*n_columns_ + token%k_.tile*k_.interleave;
    switch (k_.interleave) {
        case 4:  return scatter<4>(row, n_columns_, width*4, target);
        case 8:  return scatter<8>(row, n_columns_, width*8, target);
        case 16: return scatter<16>(row, n_columns_, width*16, target);
        default: return scatter<64>(row, n_columns_, width*64, target);
    }
}

void quantizer::pad() const {
    const int64_t tile  = n_tokens_/k_.tile;
    const int64_t first = n_tokens_%k_.tile;
    if (padded(k_, n_tokens_) == n_tokens_) {
        return;
    }
    const int64_t width = width_of(tile);
    const int64_t missing = padded(k_, n_tokens_) - n_tokens_;
    std::fill_n(factors_ + n_tokens_*n_segments_, missing*n_segments_, 0.0f);
    std::fill_n(offsets_ + n_tokens_*n_offsets_, missing*n_offsets_, 0);
    int8_t * target = q_ + tile*k_.tile*n_columns_ + first*k_.interleave;
    for (int64_t i = 0; i < n_columns_; i += k_.interleave, target += width*k_.interleave) {
        memset(target, 0, (width - first)*k_.interleave);
    }
}

}  // namespace edgellm::ternary
