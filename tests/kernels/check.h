// The checker of kernels, after dav1d's checkasm: every function of every product, at every level, against a truth in
// plain C++ that is written from the contracts (patches/native/*/kernels.h).
//
// It gives the products' ladders one more level at a time. A function that a level changes is checked; so whoever adds
// a kernel to a ladder has added it here.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>

namespace check {

// n values on a cache line; nothing lies behind them, so that the address sanitizer sees who goes too far.
template <typename T>
class buffer {
  public:
    explicit buffer(int64_t n, T value = {}) : n_(n) {
        void * memory = nullptr;
        if (posix_memalign(&memory, 64, n > 0 ? n*sizeof(T) : 1) != 0) {
            abort();
        }
        data_ = (T *) memory;
        for (int64_t i = 0; i < n; ++i) {
            data_[i] = value;
        }
    }
    ~buffer() { free(data_); }
    buffer(const buffer &) = delete;
    buffer & operator=(const buffer &) = delete;

    T * data() { return data_; }
    const T * data() const { return data_; }
    T & operator[](int64_t i) { return data_[i]; }
    const T & operator[](int64_t i) const { return data_[i]; }
    int64_t size() const { return n_; }
    T * begin() { return data_; }
    T * end() { return data_ + n_; }

  private:
    T     * data_;
    int64_t n_;
};

// The same numbers on every machine.
class random {
  public:
    explicit random(uint32_t seed) : state_(seed*2654435761u + 1) {}
    uint32_t next() { return state_ = state_*1664525u + 1013904223u, state_ >> 8; }
    int between(int low, int high) { return low + (int) (next() % (uint32_t) (high - low + 1)); }
    float uniform() { return (float) (next() & 0xffff)/32768.0f - 1.0f; }  // -1 .. 1

  private:
    uint32_t state_;
};

// Makes the compiler believe that a value is used.
template <typename T>
inline void keep(const T & value) {
    __asm__ volatile("" : : "g"(&value) : "memory");
}

// What is printed, and whether all is well.
class report {
  public:
    explicit report(bool bench) : bench_(bench) {}

    // The level whose functions come next.
    void level(const std::string & name) { level_ = name; }

    // Whether this function is to be checked now: it is there, and no lower level had it already. If so, `end` follows.
    template <typename Function>
    bool begin(const char * name, Function * function) { return begin_at(name, (void *) function); }

    // One case of the function, described as printf does it; the first one that fails is printed. False after that.
    bool expect(bool right, const char * format, ...) __attribute__((format(printf, 3, 4)));

    // With --bench: the time of one call, and how many times as fast it is as the truth.
    void time(const std::string & what, const std::function<void()> & call, const std::function<void()> & truth);

    void end();

    int n_checked() const { return n_checked_; }
    int n_failed() const { return n_failed_; }

  private:
    bool begin_at(const char * name, void * function);

    const bool  bench_;
    std::string level_, name_, failure_, times_;
    int         n_checked_ = 0, n_failed_ = 0;
    std::map<std::string, void *> seen_;         // the function that was checked last
    std::map<std::string, double> truth_times_;  // in ns
};

// The products; each takes its kernels for these levels (cpu.h) and checks what is new.
void attention(report & r, unsigned levels);
void few(report & r, unsigned levels);
void i2_s(report & r, unsigned levels);
void ternary(report & r, unsigned levels);

}  // namespace check
