"""Give back the memory behind parts of a mapped file: they come back from the disk cache if they are read again.

    give_back({Path("model.gguf"): [(4096, 1 << 20)]})

For mappings that somebody else made in this process (the engine, when it loads a model). On Linux; elsewhere nothing
happens, and the system takes the pages itself when it needs them.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

MADV_DONTNEED = 4


def give_back(files: Mapping[Path, Sequence[tuple[int, int]]]) -> None:
    """Drop the whole pages inside of (offset, bytes) of each file from every shared, read-only mapping of it."""
    for path, parts in files.items():
        for address, start, end in _mappings(path) if parts else ():
            for offset, nbytes in parts:
                first = -(-max(offset, start) // mmap.PAGESIZE) * mmap.PAGESIZE
                last = min(offset + nbytes, end) // mmap.PAGESIZE * mmap.PAGESIZE
                if first < last:
                    _drop(address + first - start, last - first)


def _drop(address: int, nbytes: int) -> None:
    # Memory that cannot be given back is kept; nothing depends on it.
    ctypes.CDLL(None).madvise(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), MADV_DONTNEED)


def _mappings(path: Path) -> Iterator[tuple[int, int, int]]:
    """(address, first byte in the file, byte after the last) of each such mapping."""
    with contextlib.suppress(OSError, ValueError):
        inode = path.stat().st_ino
        name = os.fsencode(os.path.realpath(path))
        for line in Path("/proc/self/maps").read_bytes().splitlines():
            where, rights, offset, _, number, *mapped = line.split(maxsplit=5)
            if rights == b"r--s" and int(number) == inode and mapped == [name]:
                begin, end = (int(part, 16) for part in where.split(b"-"))
                yield begin, int(offset, 16), int(offset, 16) + end - begin
