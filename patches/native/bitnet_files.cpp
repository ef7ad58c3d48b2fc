#include "bitnet_files.h"

namespace edgellm {

namespace {

void set_default(gguf_context * metadata, const std::string & key, const char * value) {
    if (gguf_find_key(metadata, key.c_str()) < 0) {
        gguf_set_val_str(metadata, key.c_str(), value);
    }
}

bool has_string(const gguf_context * metadata, const char * key, const std::string & value) {
    const int64_t id = gguf_find_key(metadata, key);
    return id >= 0 && gguf_get_kv_type(metadata, id) == GGUF_TYPE_STRING && gguf_get_val_str(metadata, id) == value;
}

}  // namespace

bool is_bitnet_cpp_architecture(const std::string & name) {
    // the published files of BitNet 2B-4T, and their first upload
    return name == "bitnet-b1.58" || name == "bitnet-25";
}

void complete_bitnet_cpp_metadata(gguf_context * metadata, const std::string & architecture, std::string & prefix) {
    if (!is_bitnet_cpp_architecture(architecture)) {
        return;
    }
    prefix = architecture;
    set_default(metadata, architecture + ".hidden_activation", "relu2");
    if (has_string(metadata, "tokenizer.ggml.model", "gpt2")) {
        set_default(metadata, "tokenizer.ggml.pre", "llama-bpe");
    }
}

}  // namespace edgellm
