// The matrix product with I2_S weights on ordinary CPU buffers: ggml's hooks for it.
#pragma once

#include "ggml.h"

struct ggml_compute_params;

namespace edgellm::i2_s {

// False for an operation that reads or writes I2_S and is not a product we compute; true for all others.
bool supports_op(const ggml_tensor * op);

// Both return false, and leave the operation to ggml, unless it is a product with I2_S weights.
bool work_size(const ggml_tensor * op, size_t * size);
bool compute_forward(const ggml_compute_params * params, ggml_tensor * op);

}  // namespace edgellm::i2_s
