"""Measures how fast this machine reads memory now, with a given number of threads.

    read_bandwidth(2, memory_reader(engine.libraries))  ->  2.1e10

Threads read parts of an array much larger than the caches, several times, with a function that does nothing else.
The fastest pass counts, so the result is the memory's best rate within a quarter of a second.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from edgellm.engine.kernels import Reader
from edgellm.machine import memory

PASSES = 5
# Parts are small, so that a thread that briefly loses its core does not make the others wait long.
PART_BYTES = 4 << 20
SMALLEST, LARGEST = 256 << 20, 1 << 30
CACHES = 4


def read_bandwidth(n_threads: int, read: Reader) -> float:
    """Return the bytes per second that `n_threads` threads read together."""
    data = np.ones(buffer_bytes() // PART_BYTES * PART_BYTES, np.uint8)
    parts = range(data.ctypes.data, data.ctypes.data + data.nbytes, PART_BYTES)
    seconds = []
    with ThreadPoolExecutor(n_threads) as threads:
        for _ in range(PASSES):
            start = time.perf_counter()
            for _ in threads.map(lambda part: read(part, PART_BYTES), parts):
                pass
            seconds.append(time.perf_counter() - start)
    return data.nbytes / min(seconds)


def buffer_bytes() -> int:
    """Return the array size: four times the last-level cache, within bounds and the available memory."""
    wanted = min(LARGEST, max(SMALLEST, CACHES * _largest_cache()))
    return max(PART_BYTES, min(wanted, memory.available() // 4))


def _largest_cache() -> int:
    """Return the size of this CPU's largest cache in bytes, or 0 when the system does not report it."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="utf-8").strip()
        if text.endswith("K") and text[:-1].isdigit():
            sizes.append(int(text[:-1]) << 10)
    return max(sizes)
