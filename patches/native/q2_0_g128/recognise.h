// Which of the two Q2_0 a GGUF file holds. Both have the id 42; only the offsets of the tensors tell.
#pragma once

#include "ggml.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace edgellm {

// Makes the Q2_0 tensors of a file those of 128 columns a scale if the offsets are right so, and not with 64. Where only
// the last tensor is Q2_0, what is left of the file has to hold it. `tensors` are gguf.cpp's: `t` and `offset`, in the
// order of the file.
template <typename Info>
void recognise_q2_0_g128(std::vector<Info> & tensors, size_t alignment, uint64_t data_bytes) {
    if (tensors.empty()) {
        return;
    }
    const auto bytes_with = [](const ggml_tensor & t, ggml_type type) {
        return t.type != GGML_TYPE_Q2_0 ? (uint64_t) ggml_nbytes(&t) :
               t.ne[0] % ggml_blck_size(type) != 0 ? UINT64_MAX :
               (uint64_t) ggml_nelements(&t)/ggml_blck_size(type)*ggml_type_size(type);
    };
    const auto offsets_fit = [&](ggml_type type) {
        for (size_t i = 0; i < tensors.size(); ++i) {
            const uint64_t bytes = bytes_with(tensors[i].t, type);
            const bool     last  = i + 1 == tensors.size();
            if (bytes > UINT64_MAX/2 ||
                (!last && tensors[i + 1].offset - tensors[i].offset != GGML_PAD(bytes, alignment))) {
                return false;
            }
        }
        return true;
    };
    const auto last_fits = [&](ggml_type type) {
        const Info & last = tensors.back();
        return last.offset <= data_bytes && bytes_with(last.t, type) <= data_bytes - last.offset;
    };
    const bool with_64 = offsets_fit(GGML_TYPE_Q2_0), with_128 = offsets_fit(GGML_TYPE_Q2_0_G128);
    const bool settled_by_last = !last_fits(GGML_TYPE_Q2_0) && last_fits(GGML_TYPE_Q2_0_G128);
    if (!with_128 || (with_64 && !settled_by_last)) {
        return;
    }
    for (Info & info : tensors) {
        ggml_tensor & t = info.t;
        if (t.type == GGML_TYPE_Q2_0) {
            t.type  = GGML_TYPE_Q2_0_G128;
            t.nb[0] = ggml_type_size(t.type);
            t.nb[1] = ggml_row_size(t.type, t.ne[0]);
            t.nb[2] = t.nb[1]*t.ne[1];
            t.nb[3] = t.nb[2]*t.ne[2];
        }
    }
}

// The id that files know a type by.
inline ggml_type id_in_files(ggml_type type) {
    return type == GGML_TYPE_Q2_0_G128 ? GGML_TYPE_Q2_0 : type;
}

}  // namespace edgellm
