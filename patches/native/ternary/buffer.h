// Where ggml meets the ternary kernels: a buffer type whose tensors are packed when they are loaded.
#pragma once

#include "ggml-backend.h"

namespace edgellm::ternary {

// Null where the kernels are switched off. Offered to llama's loader before all other buffer types of the CPU.
ggml_backend_buffer_type_t buffer_type();

}  // namespace edgellm::ternary
