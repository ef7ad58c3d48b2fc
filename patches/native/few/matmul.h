// Products of quantised weights with a few tokens, on ordinary CPU buffers: ggml's hooks for them.
#pragma once

#include "ggml.h"

struct ggml_compute_params;

namespace edgellm::few {

// Both return false, and leave the operation to ggml, unless it is a product that we compute here.
bool work_size(int n_threads, const ggml_tensor * op, size_t * size);
bool compute_forward(const ggml_compute_params * params, ggml_tensor * op);

}  // namespace edgellm::few
