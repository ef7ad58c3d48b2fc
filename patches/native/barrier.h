// The barrier between ggml's threads, for machines where a thread may lose its core.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

// Waits until `n_threads` threads have arrived; false where this system has no way to sleep on a word of memory, and
// nothing happened. `n_arrived` counts the threads that wait, `n_passed` the times that all of them went on.
//
// ggml and OpenMP wait by spinning. That is the fastest way while every thread has a core, and the worst when one has
// not: the others burn the time slice that it waits for, a hundred times per token. Here a thread spins for as long as
// that has lately been worth it, then sleeps.
bool edgellm_barrier(atomic_int * n_arrived, atomic_int * n_passed, int n_threads);
