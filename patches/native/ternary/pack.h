// From the tensor types of GGUF files to the layout in memory.
#pragma once

#include "layout.h"

#include "ggml.h"

namespace edgellm::ternary {

// Whether matrices of this type and size can have the layout, as far as their shape tells.
bool can_pack(ggml_type type, int64_t n_columns);

// Bytes of a packed matrix: panels, then scales; a multiple of 64.
size_t packed_size(int64_t n_rows, int64_t n_columns);

// The matrix that `data`, `packed_size` bytes, holds.
matrix packed_matrix(const void * data, int64_t n_rows, int64_t n_columns);

struct packing {
    bool exact;      // false: some row has blocks with different scales, and the layout cannot hold it
    bool one_scale;  // all rows have the same scale, or only zeros
};

// Packs the bytes of a whole tensor into `packed_size` bytes at `target`, with a few threads where it is large.
packing pack(ggml_type type, const void * tensor, int64_t n_rows, int64_t n_columns, void * target);

}  // namespace edgellm::ternary
