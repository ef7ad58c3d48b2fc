// Weights that have been copied out of a mapped file.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__unix__) || defined(__APPLE__)
#    include <sys/mman.h>
#    include <unistd.h>
#endif

namespace edgellm {

// Gives back the whole pages of a part of a mapped file, so that a process does not hold its weights twice. Only for
// shared mappings of files: what is read again afterwards comes from the file.
inline void release_mapped(const void * data, size_t size) {
#if defined(__unix__) || defined(__APPLE__)
    const uintptr_t page  = (uintptr_t) sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t) data + page - 1)/page*page;
    const uintptr_t last  = ((uintptr_t) data + size)/page*page;
    if (first < last) {
        madvise((void *) first, last - first, MADV_DONTNEED);
    }
#else
    (void) data, (void) size;
#endif
}

}  // namespace edgellm
