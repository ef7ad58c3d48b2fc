// What programs outside may ask: which kernels run, and how fast memory can be read.

#include "dispatch.h"

#include "ggml-backend.h"

#include <cstring>

extern "C" {

// The name of the ternary kernels in use; "stock" where they are switched off.
GGML_BACKEND_API const char * edgellm_kernels(void);

// Reads `size` bytes (a multiple of 64) as fast as this thread can; the result depends on all of them.
GGML_BACKEND_API uint64_t edgellm_read(const void * data, size_t size);

}

const char * edgellm_kernels(void) {
    const edgellm::ternary::kernels * k = edgellm::ternary::chosen();
    return k != nullptr ? k->name : "stock";
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
