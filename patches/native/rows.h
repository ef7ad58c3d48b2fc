// Rows of tensors, for products that take each token by itself.
#pragma once

#include "ggml.h"

namespace edgellm {

// Row i of a tensor, its rows counted through all dimensions.
inline char * row_address(const ggml_tensor * t, int64_t i) {
    const int64_t i1 = i % t->ne[1];
    const int64_t i2 = i / t->ne[1] % t->ne[2];
    const int64_t i3 = i / t->ne[1] / t->ne[2];
    return (char *) t->data + i1*t->nb[1] + i2*t->nb[2] + i3*t->nb[3];
}

}  // namespace edgellm
