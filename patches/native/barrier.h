// The barrier between ggml's threads, for machines where a thread may lose its core.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

// Waits until `n_threads` threads have arrived; false where this system has no way to sleep on a word of memory, and
// nothing happened. `n_arrived` counts the threads that wait, `n_passed` the times that all of them went on.
//
// ggml and OpenMP wait by spinning. That is fastest while every thread has a core and slowest when one has none: the
// others burn the time slice that it waits for, a hundred times per token. Here threads spin while they keep their cores,
// and sleep at once where other programs take them.
bool edgellm_barrier(atomic_int * n_arrived, atomic_int * n_passed, int n_threads);
