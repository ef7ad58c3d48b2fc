// ggml's hooks for attention.
#pragma once

#include "ggml.h"

struct ggml_compute_params;

namespace edgellm::attention {

// Both return false, and leave the operation to ggml, unless it is attention that we compute here.
bool work_size(int n_threads, const ggml_tensor * op, size_t * size);
bool compute_forward(const ggml_compute_params * params, ggml_tensor * op);

}  // namespace edgellm::attention
