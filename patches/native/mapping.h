// Weights in mapped files: read ahead, or given back.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__unix__) || defined(__APPLE__)
#    include <sys/mman.h>
#    include <unistd.h>
#endif

namespace edgellm {

#if defined(__unix__) || defined(__APPLE__)
// Hints about all pages that hold a part of a mapped file.
inline bool advise_mapped(const void * data, size_t size, int advice) {
    const uintptr_t page  = (uintptr_t) sysconf(_SC_PAGESIZE);
    const uintptr_t first = (uintptr_t) data/page*page;
    return madvise((void *) first, (uintptr_t) data + size - first, advice) == 0;
}
#endif

// Lets the system read a part of a mapped file ahead; does nothing for other memory.
inline void will_read(const void * data, size_t size) {
#if defined(__unix__) || defined(__APPLE__)
    advise_mapped(data, size, MADV_WILLNEED);
#else
    (void) data, (void) size;
#endif
}

// Has a part of a mapped file in memory, ready for use.
inline void populate_mapped(const void * data, size_t size) {
#if defined(MADV_POPULATE_READ)
    if (advise_mapped(data, size, MADV_POPULATE_READ)) {
        return;
    }
#endif
    will_read(data, size);
}

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
