// From the tensor types of GGUF files to the layout in memory.
#pragma once

#include "layout.h"

#include "ggml.h"

namespace edgellm::ternary {

// The format that holds every tensor of a type, I2_S apart; no bits for other types.
format format_of(ggml_type type);

// Whether matrices of this type and size can have the layout, as far as their shape tells.
bool can_pack(ggml_type type, int64_t n_columns);

// Bytes that a packed matrix takes at most: which format it gets depends on its scales. A multiple of 64.
size_t packed_size(ggml_type type, int64_t n_rows, int64_t n_columns);

// The matrix that `data` holds.
matrix packed_matrix(const format & packed, const void * data, int64_t n_rows, int64_t n_columns);

struct packing {
    format packed;
    bool   one_scale;  // all rows have the same scale, or only zeros
};

// Packs the bytes of a whole matrix into `packed_size` bytes at `target`, with a few threads where it is large.
packing pack(ggml_type type, const void * tensor, int64_t n_rows, int64_t n_columns, void * target);

}  // namespace edgellm::ternary
