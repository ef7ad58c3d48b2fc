#include "storage.h"

#include "../cpu.h"

#include "ggml-impl.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#if defined(__linux__)
#    include <sys/vfs.h>
#elif defined(__APPLE__)
#    include <sys/sysctl.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

namespace edgellm::packed {

namespace {

constexpr size_t HUGE_PAGE   = size_t(2) << 20;
constexpr size_t ALIGNMENT   = 64;
constexpr size_t FRONT_BYTES = HUGE_PAGE;  // so that the matrices begin with one
constexpr char   MAGIC[8]    = { 'E', 'D', 'G', 'E', 'P', 'A', 'C', 'K' };

struct header {
    char     magic[8];
    uint32_t key_bytes;
    uint32_t n_entries;
    uint64_t matrix_bytes;
    uint64_t checksum;  // of key and entries
    char     boot[40];  // in which the file was written; empty as soon as all of it is on the disk
};

std::atomic<bool>    asked{false};
thread_local request next;

// For one buffer only: another one belongs to another model. The request in the environment is for the first buffer of a
// program that asks for nothing else.
request take_request() {
    if (asked.exchange(true)) {
        return std::exchange(next, {});
    }
    const char * path = getenv("EDGELLM_PACKED_FILE");
    const char * key  = getenv("EDGELLM_PACKED_KEY");
    return path == nullptr || key == nullptr ? request{} : request{ path, key };
}

// FNV-1a.
uint64_t checksum(const void * data, size_t size) {
    uint64_t sum = 0xcbf29ce484222325;
    for (size_t i = 0; i < size; ++i) {
        sum = (sum ^ ((const uint8_t *) data)[i])*0x100000001b3;
    }
    return sum;
}

// What changes when the machine starts; empty where that is unknown.
std::string boot() {
    char id[sizeof(header::boot)] = {};
#if defined(__linux__)
    if (FILE * file = fopen("/proc/sys/kernel/random/boot_id", "re")) {
        if (fscanf(file, "%39s", id) != 1) {
            id[0] = '\0';
        }
        fclose(file);
    }
#elif defined(__APPLE__)
    size_t size = sizeof(id) - 1;
    if (sysctlbyname("kern.bootsessionuuid", id, &size, nullptr, 0) != 0) {
        id[0] = '\0';
    }
#endif
    return id;
}

// Whether an open file still has this name.
bool is_named(int fd, const std::string & path) {
    struct stat open, named;
    return fstat(fd, &open) == 0 && lstat(path.c_str(), &named) == 0 && S_ISREG(named.st_mode) &&
           open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}

// Whether a file lies in memory, where it would stay after the process.
bool is_in_memory(int fd) {
#if defined(__linux__)
    constexpr uint32_t TMPFS = 0x01021994, RAMFS = 0x858458f6;
    struct statfs about;
    return fstatfs(fd, &about) != 0 || (uint32_t) about.f_type == TMPFS || (uint32_t) about.f_type == RAMFS;
#else
    (void) fd;
    return false;
#endif
}

// Blocks for a whole file: a process that writes to a mapping dies where the disk is full. At most half of what is free.
bool reserve(int fd, size_t size) {
    struct statvfs about;
    if (fstatvfs(fd, &about) != 0 || size > about.f_bavail*about.f_frsize/2) {
        return false;
    }
#if defined(__linux__)
    return fallocate(fd, 0, 0, (off_t) size) == 0;
#elif defined(__APPLE__)
    fstore_t blocks = { F_ALLOCATEALL, F_PEOFPOSMODE, 0, (off_t) size, 0 };
    return fcntl(fd, F_PREALLOCATE, &blocks) != -1 && ftruncate(fd, (off_t) size) == 0;
#else
    return posix_fallocate(fd, 0, (off_t) size) == 0;
#endif
}

// Waits until a file and its name are on the disk.
bool sync(int fd, const std::string & path) {
    const int  directory = open(path.substr(0, path.rfind('/') + 1).c_str(), O_RDONLY | O_CLOEXEC);
    const bool done      = fsync(fd) == 0 && directory >= 0 && fsync(directory) == 0;
    if (directory >= 0) {
        close(directory);
    }
    return done;
}

// Lets the header say that all of a file is on the disk as soon as that is so, and closes it. In the background, because
// a disk takes its time; if the process ends before, the next one that maps the file does it.
void settle(int fd, const std::string & path) {
    const auto work = [fd, path] {
        const char nothing[sizeof(header::boot)] = {};
        if (sync(fd, path)) {
            (void) !pwrite(fd, nothing, sizeof(nothing), offsetof(header, boot));
        }
        close(fd);
    };
    try {
        std::thread(work).detach();
    } catch (const std::system_error &) {  // no more threads for this user
        close(fd);
    }
}

}  // namespace

void ask(request r) {
    asked = true;
    next  = std::move(r);
}

std::unique_ptr<storage> storage::make(size_t size) {
    std::unique_ptr<storage> s(new storage());
    request r = take_request();
    r.key += std::string("kernels ") + cpu::chosen() + "\n";
    const bool in_file = !r.path.empty() && size > 0 && (s->open(r, size) || s->create(r, size));
    return in_file || s->allocate(size) ? std::move(s) : nullptr;
}

storage::~storage() {
    if (state_ == state::FILLING) {
        unlink(part().c_str());
        close(fd_);
    }
    if (mapped_ != nullptr) {
        munmap(mapped_, FRONT_BYTES + size_);
    } else {
        free(data_);
    }
}

// Memory for weights, all of which are read for every token: huge pages, where available, save most page walks.
bool storage::allocate(size_t size) {
    size_ = size;
    if (posix_memalign(&data_, size < HUGE_PAGE ? ALIGNMENT : HUGE_PAGE, std::max(size, ALIGNMENT)) != 0) {
        data_ = nullptr;
        return false;
    }
#if defined(__linux__)
    if (size >= HUGE_PAGE) {
        madvise(data_, size, MADV_HUGEPAGE);
    }
#endif
    return true;
}

bool storage::map(int fd, size_t size, int protection) {
    void * all = mmap(nullptr, FRONT_BYTES + size, protection, MAP_SHARED, fd, 0);
    if (all == MAP_FAILED) {
        return false;
    }
#if defined(__linux__)
    madvise(all, FRONT_BYTES + size, MADV_HUGEPAGE);
#endif
    mapped_ = all;
    data_   = (char *) all + FRONT_BYTES;
    size_   = size;
    return true;
}

// Whether the front of the mapped file is whole, and for this request; takes its entries.
bool storage::is_front_of(const request & r) {
    const header & h    = *(const header *) mapped_;
    const char *   key  = (const char *) mapped_ + sizeof(header);
    const size_t   most = FRONT_BYTES - sizeof(header);
    if (memcmp(h.magic, MAGIC, sizeof(MAGIC)) != 0 || h.matrix_bytes != size_ || h.key_bytes > most ||
        h.n_entries > (most - h.key_bytes)/sizeof(entry)) {
        return false;
    }
    const size_t bytes = h.n_entries*sizeof(entry);
    if (h.checksum != checksum(key, h.key_bytes + bytes) || r.key != std::string(key, h.key_bytes)) {
        return false;
    }
    entries_.resize(h.n_entries);
    memcpy((void *) entries_.data(), key + h.key_bytes, bytes);
    return true;
}

bool storage::open(const request & r, size_t size) {
    int fd = ::open(r.path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        fd = ::open(r.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    }
    if (fd < 0) {
        return false;
    }
    struct stat about;
    const bool right_size = fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && (size_t) about.st_size == FRONT_BYTES + size;
    if (right_size && map(fd, size, PROT_READ) && is_front_of(r)) {
        const header &    h = *(const header *) mapped_;
        const std::string written(h.boot, strnlen(h.boot, sizeof(h.boot)));
        if (written.empty() || written == boot()) {
            state_   = state::READY;
            request_ = r;
            if (written.empty()) {
                close(fd);
            } else {
                settle(fd, r.path);
            }
            return true;
        }
    }
    GGML_LOG_DEBUG("%s: %s is not for this model\n", __func__, r.path.c_str());
    unlink(r.path.c_str());
    if (mapped_ != nullptr) {
        munmap(std::exchange(mapped_, nullptr), FRONT_BYTES + size);
        entries_.clear();
    }
    close(fd);
    return false;
}

bool storage::create(const request & r, size_t size) {
    const std::string name = r.path + ".part";
    const int fd = ::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return false;
    }
    // Another process may be filling it, or have renamed it by now.
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 || !is_named(fd, name)) {
        close(fd);
        return false;
    }
    if (is_in_memory(fd) || ftruncate(fd, 0) != 0 || !reserve(fd, FRONT_BYTES + size) ||
        !map(fd, size, PROT_READ | PROT_WRITE)) {
        GGML_LOG_DEBUG("%s: there is no place for %s\n", __func__, name.c_str());
        unlink(name.c_str());
        close(fd);
        return false;
    }
    state_   = state::FILLING;
    request_ = r;
    fd_      = fd;
    return true;
}

bool storage::write_front() {
    header h = { {}, (uint32_t) request_.key.size(), (uint32_t) entries_.size(), size_, 0, {} };
    const size_t bytes = entries_.size()*sizeof(entry);
    if (sizeof(h) + h.key_bytes + bytes > FRONT_BYTES) {
        return false;
    }
    char * key = (char *) mapped_ + sizeof(h);
    memcpy(key, request_.key.data(), h.key_bytes);
    memcpy(key + h.key_bytes, entries_.data(), bytes);
    memcpy(h.magic, MAGIC, sizeof(MAGIC));
    snprintf(h.boot, sizeof(h.boot), "%s", boot().c_str());
    h.checksum = checksum(key, h.key_bytes + bytes);
    memcpy(mapped_, &h, sizeof(h));
    // Where boots have no names, a file that has its own is on the disk.
    return h.boot[0] != '\0' || sync(fd_, request_.path);
}

bool storage::publish() {
    return write_front() && mprotect(mapped_, FRONT_BYTES + size_, PROT_READ) == 0 &&
           rename(part().c_str(), request_.path.c_str()) == 0;
}

// Nothing has been packed yet: the same addresses, with other memory behind them.
bool storage::become_memory() {
    state_ = state::MEMORY;
    unlink(request_.path.c_str());
    return mmap(mapped_, FRONT_BYTES + size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
           MAP_FAILED;
}

bool storage::add(const ggml_tensor * t) {
    entry e;
    memset((void *) &e, 0, sizeof(e));
    memcpy(e.name, t->name, strnlen(t->name, sizeof(e.name)));
    e.offset = (const char *) t->data - (const char *) data_;
    std::copy(t->ne, t->ne + 3, e.ne);
    e.type = t->type;
    if (state_ != state::READY) {
        entries_.push_back(e);
        return true;
    }
    const bool is_there = n_done_ < entries_.size() && memcmp(&entries_[n_done_], &e, offsetof(entry, packed)) == 0;
    ++n_done_;
    return is_there || become_memory();
}

entry & storage::entry_of(const ggml_tensor * t) {
    const int64_t offset = (const char *) t->data - (const char *) data_;
    return *std::lower_bound(entries_.begin(), entries_.end(), offset,
                             [](const entry & e, int64_t offset) { return e.offset < offset; });
}

const ternary::packing * storage::find(const ggml_tensor * t) {
    return state_ == state::READY ? &entry_of(t).packed : nullptr;
}

void storage::packed(const ggml_tensor * t, const ternary::packing & how) {
    if (state_ != state::FILLING) {
        return;
    }
    entry_of(t).packed = how;
    if (++n_done_ < entries_.size()) {
        return;
    }
    if (publish()) {
        settle(fd_, request_.path);
    } else {
        unlink(part().c_str());
        close(fd_);
    }
    state_ = state::MEMORY;
}

}  // namespace edgellm::packed
