// What other programs may ask: which kernels run, how fast memory can be read, and where packed weights are kept.

#include "cpu.h"
#include "packed/storage.h"

#include "ggml-backend.h"

#include <cstring>

extern "C" {

// The level of the kernels in use; "stock" where they are switched off.
GGML_BACKEND_API const char * edgellm_kernels(void);

// Reads `size` bytes (a multiple of 64) as fast as this thread can; the result depends on all of them.
GGML_BACKEND_API uint64_t edgellm_read(const void * data, size_t size);

// Keeps the packed weights of the next model that this thread loads in a file, or takes them from it; an empty path:
// nowhere. `key` says what they depend on.
GGML_BACKEND_API void edgellm_keep_packed(const char * path, const char * key);

}

const char * edgellm_kernels(void) {
    return edgellm::cpu::chosen();
}

uint64_t edgellm_read(const void * data, size_t size) {
    const char * bytes = (const char *) data;
    uint64_t sums[8] = {};
    for (size_t i = 0; i < size; i += sizeof(sums)) {
        uint64_t words[8];
        memcpy(words, bytes + i, sizeof(words));
        for (int k = 0; k < 8; ++k) {
            sums[k] ^= words[k];
        }
    }
    uint64_t all = 0;
    for (uint64_t sum : sums) {
        all ^= sum;
    }
    return all;
}

void edgellm_keep_packed(const char * path, const char * key) {
    edgellm::packed::ask({ path, key });
}
