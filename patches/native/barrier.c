#if defined(__linux__) && !defined(_GNU_SOURCE)
#    define _GNU_SOURCE
#endif

#include "barrier.h"

#if defined(__linux__)

#    include <limits.h>
#    include <linux/futex.h>
#    include <sched.h>
#    include <sys/syscall.h>
#    include <unistd.h>

#    if defined(__x86_64__)
#        include <immintrin.h>
#        define RELAX() _mm_pause()
#    elif defined(__aarch64__)
#        define RELAX() __asm__ volatile("yield")
#    else
#        define RELAX() ((void) 0)
#    endif

// A few microseconds: the time that balanced threads need for each other.
enum { SPINS = 256 };
// Then other threads are let on this core, ours among them, while the wait may still be short; waking up from sleep
// would take longer.
enum { YIELDS = 256 };

static atomic_int n_sleeping = 0;

static bool passed(atomic_int * n_passed, int before) {
    return atomic_load_explicit(n_passed, memory_order_acquire) != before;
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
    for (int i = 0; i < SPINS; ++i) {
        if (passed(n_passed, before)) {
            return true;
        }
        RELAX();
    }
    for (int i = 0; i < YIELDS; ++i) {
        if (passed(n_passed, before)) {
            return true;
        }
        sched_yield();
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
