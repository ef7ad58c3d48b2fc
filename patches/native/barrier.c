#if defined(__linux__) && !defined(_GNU_SOURCE)
#    define _GNU_SOURCE
#endif

#include "barrier.h"

#if defined(__linux__)

#    include <limits.h>
#    include <linux/futex.h>
#    include <sys/resource.h>
#    include <sys/syscall.h>
#    include <time.h>
#    include <unistd.h>

#    if defined(__x86_64__)
#        include <immintrin.h>
#        define RELAX() _mm_pause()
#    elif defined(__aarch64__)
#        define RELAX() __asm__ volatile("yield")
#    else
#        define RELAX() ((void) 0)
#    endif

typedef long long nanoseconds;

// Some microseconds: as long as balanced threads wait for each other.
enum { SPINS = 256 };
// Longer than threads wait for each other while all have a core. Waking a thread up takes 0.2 ms on a virtual machine:
// a thread that slept comes late, so that the next one sleeps as well, and so on.
static const nanoseconds LONGEST_SPIN = 8000000;
// The cores are shared with others if threads lose theirs so often in so short a time. Now and then every thread does.
enum { LOSSES = 4 };
static const nanoseconds LOSSES_WITHIN = 40000000;
// How long threads then sleep at once, before they look whether they have their cores back.
static const nanoseconds SHARED_FOR = 100000000;

static atomic_int   n_sleeping = 0;
static atomic_uint  n_losses   = 0;
static atomic_llong losses[LOSSES];  // when the last ones were
static atomic_llong shared_until = 0;

static _Thread_local long n_taken = -1;  // how often this thread lost its core

static nanoseconds now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (nanoseconds) t.tv_sec*1000000000 + t.tv_nsec;
}

static bool passed(atomic_int * n_passed, int before) {
    return atomic_load_explicit(n_passed, memory_order_acquire) != before;
}

static bool spin(atomic_int * n_passed, int before) {
    for (int i = 0; i < SPINS; ++i) {
        if (passed(n_passed, before)) {
            return true;
        }
        RELAX();
    }
    return false;
}

// Whether another thread took this one's core since the last call.
static bool lost_core(void) {
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    const long before = n_taken;
    n_taken = usage.ru_nivcsw;
    return before >= 0 && n_taken != before;
}

static void count_loss(nanoseconds time) {
    const unsigned i = atomic_fetch_add(&n_losses, 1)%LOSSES;
    if (time - atomic_exchange(&losses[i], time) < LOSSES_WITHIN) {
        atomic_store_explicit(&shared_until, time + SHARED_FOR, memory_order_relaxed);
    }
}

static bool cores_are_shared(nanoseconds time) {
    return atomic_load_explicit(&shared_until, memory_order_relaxed) > time;
}

static void sleep_until_passed(atomic_int * n_passed, int before) {
    // The last thread first counts up n_passed and then looks for sleepers: either it sees us, or the kernel sees that
    // the word has changed and does not let us sleep.
    atomic_fetch_add(&n_sleeping, 1);
    while (atomic_load(n_passed) == before) {
        syscall(SYS_futex, n_passed, FUTEX_WAIT_PRIVATE, before, NULL, NULL, 0);
    }
    atomic_fetch_sub(&n_sleeping, 1);
}

bool edgellm_barrier(atomic_int * n_arrived, atomic_int * n_passed, int n_threads) {
    const int before = atomic_load_explicit(n_passed, memory_order_relaxed);
    if (atomic_fetch_add(n_arrived, 1) == n_threads - 1) {
        atomic_store_explicit(n_arrived, 0, memory_order_relaxed);
        atomic_fetch_add(n_passed, 1);
        if (atomic_load(&n_sleeping) > 0) {
            syscall(SYS_futex, n_passed, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
        }
        return true;
    }
    if (spin(n_passed, before)) {
        return true;
    }
    const nanoseconds begin = now();
    for (nanoseconds time = begin; time < begin + LONGEST_SPIN && !cores_are_shared(time); time = now()) {
        if (lost_core()) {
            count_loss(time);
        }
        if (spin(n_passed, before)) {
            return true;
        }
    }
    sleep_until_passed(n_passed, before);
    return true;
}

#else

bool edgellm_barrier(atomic_int * n_arrived, atomic_int * n_passed, int n_threads) {
    (void) n_arrived, (void) n_passed, (void) n_threads;
    return false;
}

#endif
