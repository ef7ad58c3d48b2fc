// What the checks of ternary kernels share.
#pragma once

#include "check.h"

#include "ternary/kernels.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace check {

inline bool same(const void * a, const void * b, int64_t n_bytes) {
    return memcmp(a, b, n_bytes) == 0;
}

// Tokens as layout.h has them for these kernels; those that fill up the last tile are zero. A single one is not padded.
inline std::vector<int8_t> arranged(const edgellm::ternary::kernels & k, const buffer<int8_t> & q, int64_t n_tokens,
                                    int64_t n_columns) {
    const int64_t padded = n_tokens == 1 ? 1 : (n_tokens + k.padding - 1)/k.padding*k.padding;
    std::vector<int8_t> result;
    for (int64_t first = 0; first < padded; first += k.tile) {
        const int64_t width = std::min<int64_t>(k.tile, padded - first);
        for (int64_t column = 0; column < n_columns; column += k.interleave) {
            for (int64_t token = first; token < first + width; ++token) {
                for (int64_t i = 0; i < k.interleave; ++i) {
                    result.push_back(token < n_tokens ? q[token*n_columns + column + i] : 0);
                }
            }
        }
    }
    return result;
}

// ternary_experts.cpp, ternary_multiply.cpp, ternary_nested.cpp and ternary_pack.cpp
void experts(report & r, const edgellm::ternary::kernel_set & set);
void multiply(report & r, const edgellm::ternary::kernel_set & set);
void nested(report & r, const edgellm::ternary::kernel_set & set);
void pack(report & r);

}  // namespace check
