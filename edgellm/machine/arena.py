"""Keeps the C library's allocator within a limited address space.

share_one_arena()
"""

from __future__ import annotations

import contextlib
import ctypes

# From malloc.h of glibc.
M_ARENA_MAX = -8


def share_one_arena() -> None:
    """Let all threads allocate from one arena; glibc would reserve 64 MiB of address space for each of them."""
    with contextlib.suppress(AttributeError, OSError):  # another C library has no mallopt
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
