#include "activations.h"

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

int64_t max_segments(int64_t n_columns) {
    return (n_columns + SEGMENT_COLUMNS - 1)/SEGMENT_COLUMNS;
}

template <int GROUP>
void scatter(const int8_t * row, int64_t n_columns, int64_t step, int8_t * target) {
    for (int64_t i = 0; i < n_columns; i += GROUP, target += step) {
        memcpy(target, row + i, GROUP);
    }
}

}  // namespace

size_t quantizer::work_size(const kernels & k, int64_t n_tokens, int64_t n_columns, int n_threads) {
    const int64_t scalars = align(n_tokens*max_segments(n_columns)*sizeof(float));
    return 2*scalars + padded(k, n_tokens)*n_columns + n_threads*n_columns + ALIGNMENT;
}

quantizer::quantizer(const kernels & k, void * buffer, int64_t n_tokens, int64_t n_columns, bool by_segment,
                     int n_threads)
    : k_(k), n_tokens_(n_tokens), n_columns_(n_columns), n_segments_(by_segment ? n_columns/SEGMENT_COLUMNS : 1) {
    const int64_t scalars = align(n_tokens*max_segments(n_columns)*sizeof(float));
    uint8_t * p = (uint8_t *) align((int64_t) buffer);
    factors_ = (float *) p;
    sums_    = (int32_t *) (p + scalars);
    rows_    = (int8_t *) (p + 2*scalars);
    q_       = rows_ + n_threads*n_columns;
}

activations quantizer::result() const {
    return { q_, factors_, sums_, n_tokens_, n_columns_, n_segments_ };
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
        const int64_t at = token*n_segments_ + i;
        sums_[at]    = k_.quantize(x + i*n, s, row + i*n, n);
        factors_[at] = n_segments_ == 1 ? s : 1.0f/s;
    }
    place(token, row);
}

void quantizer::place(int64_t token, const int8_t * row) const {
    const int64_t tile  = token/k_.tile;
    const int64_t width = width_of(tile);
    int8_t * target = q_ + tile*k_.tile*n_columns_ + token%k_.tile*k_.group;
    switch (k_.group) {
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
    const int64_t width  = width_of(tile);
    int8_t * target = q_ + tile*k_.tile*n_columns_ + first*k_.group;
    for (int64_t i = 0; i < n_columns_; i += k_.group, target += width*k_.group) {
        memset(target, 0, (width - first)*k_.group);
    }
}

}  // namespace edgellm::ternary
