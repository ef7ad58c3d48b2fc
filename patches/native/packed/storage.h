// Where packed matrices lie: in this process's memory, or in a file that all processes with the model map and share.
//
// Packing gigabytes takes seconds at each load, and each process would have a copy of its own. So the first process
// packs into a file, and the next ones map what it wrote:
//
//     header, key, entries     of FRONT_BYTES; the key says which model, in which state, for which engine
//     matrices                 byte for byte as in memory, each at the offset of its tensor
//
// The file is whole or not there. It is filled under another name (NAME.part, which its writer locks) and renamed. That
// it is on the disk matters only after a crash of the machine; until then the header names the boot in which the file
// was written, and another boot does not use it. All of this is a cache: whatever goes wrong, the process packs into
// its own memory. Damage to the matrices themselves goes unnoticed, because to check them takes as long as to pack.
#pragma once

#include "../ternary/pack.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace edgellm::packed {

// The file for the next buffer that this thread allocates, and what its contents depend on; no path: none.
struct request {
    std::string path;
    std::string key;
};

// Replaces the request of this thread. A program that never asks has that of EDGELLM_PACKED_FILE and EDGELLM_PACKED_KEY.
void ask(request r);

// One tensor in a file: which it is, and how it is packed.
struct entry {
    char             name[GGML_MAX_NAME];
    int64_t          offset;  // from the first matrix, in bytes
    int64_t          ne[3];
    int64_t          type;
    ternary::packing packed;
};

class storage {
  public:
    // Takes this thread's request. Null if there is no memory.
    static std::unique_ptr<storage> make(size_t size);
    // A file that is not full by now is deleted.
    ~storage();

    storage(const storage &) = delete;
    storage & operator=(const storage &) = delete;

    void * data() const { return data_; }

    // Every tensor is added, in the order of their offsets, before the first one is packed. A file that does not have it
    // gives way to memory; false if there is none.
    bool add(const ggml_tensor * t);
    // How a tensor is packed in the file; null if it has to be packed.
    const ternary::packing * find(const ggml_tensor * t);
    // After a tensor has been packed. The last one makes the file whole, and the memory read-only.
    void packed(const ggml_tensor * t, const ternary::packing & how);

  private:
    enum class state { MEMORY, READY, FILLING };

    storage() = default;
    bool open(const request & r, size_t size);
    bool create(const request & r, size_t size);
    bool allocate(size_t size);
    bool map(int fd, size_t size, int protection);
    bool is_front_of(const request & r);
    bool write_front();
    bool publish();
    bool become_memory();
    entry & entry_of(const ggml_tensor * t);
    std::string part() const { return request_.path + ".part"; }

    state              state_ = state::MEMORY;
    request            request_;
    int                fd_     = -1;       // of a file that is being filled
    void *             mapped_ = nullptr;  // the whole file; null for memory of the process
    void *             data_   = nullptr;
    size_t             size_   = 0;
    size_t             n_done_ = 0;        // tensors that were added to a ready file, or packed
    std::vector<entry> entries_;
};

}  // namespace edgellm::packed
