"""How fast this machine reads memory now, with so many threads.

    read_bandwidth(2, memory_reader(engine.libraries))  ->  2.1e10

Threads read parts of an array much larger than the caches with a function that does nothing else, a few times; the
fastest pass counts. What counts is therefore what the memory gave, at its best, within a quarter of a second.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from edgellm.engine.kernels import Reader
from edgellm.machine import memory

PASSES = 5
# Small parts, so that a thread that lost its core for a moment does not make the others wait for long.
PART_BYTES = 4 << 20
SMALLEST, LARGEST = 256 << 20, 1 << 30
CACHES = 4


def read_bandwidth(n_threads: int, read: Reader) -> float:
    """Bytes per second that `n_threads` threads read together."""
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
    """Four times the last cache, within bounds and what is available."""
    wanted = min(LARGEST, max(SMALLEST, CACHES * _largest_cache()))
    return max(PART_BYTES, min(wanted, memory.available() // 4))


def _largest_cache() -> int:
    """Bytes of this CPU's largest cache; 0 where the system does not tell."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        if text.endswith("K") and text[:-1].isdigit():
            sizes.append(int(text[:-1]) << 10)
    return max(sizes)
