// Files that bitnet.cpp wrote: how their headers differ from what upstream calls "bitnet".
#pragma once

#include "gguf.h"
#include "llama.h"

#include <cstdint>
#include <string>

namespace edgellm {

// bitnet.cpp's LLAMA_FTYPE_MOSTLY_I2_S. Upstream has since given 40 to Q1_0.
constexpr uint32_t BITNET_CPP_FILE_TYPE = 40;

// I2_S among llama_ftype inside this library only: a bit that upstream does not use keeps the two 40s apart.
constexpr llama_ftype FTYPE_I2_S = (llama_ftype) (512 + BITNET_CPP_FILE_TYPE);

// Whether an architecture is upstream's bitnet under a name that only bitnet.cpp gives it.
bool is_bitnet_cpp_architecture(const std::string & name);

// Adds what such a file leaves out, the pre-tokenizer and the activation function, and sets `prefix` to the
// architecture's name, with which its keys begin. Leaves all other files alone.
void complete_bitnet_cpp_metadata(gguf_context * metadata, const std::string & architecture, std::string & prefix);

}  // namespace edgellm
