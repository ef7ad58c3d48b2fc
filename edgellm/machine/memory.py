"""Measures memory: how much a process uses, and how much this one may still allocate.

available()  ->  3_900_000_000
"""

from __future__ import annotations

import re
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgellm.machine import cgroup


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that can still be allocated: of memory, and of address space if that is limited."""

    available: int
    address_space: int | None = None


def room() -> Room:
    """Return what this process can allocate without swapping, within the cgroup and address space limits."""
    bounds = [int(psutil.virtual_memory().available), cgroup.memory_available()]
    return Room(min(bound for bound in bounds if bound is not None), _address_space_left())


def available() -> int:
    """Return the bytes that can still be allocated under the tightest of the limits."""
    now = room()
    return now.available if now.address_space is None else min(now.available, now.address_space)


def _address_space_left() -> int | None:
    """Return the bytes left below RLIMIT_AS (`ulimit -v`), or None when there is no such limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    return max(0, limit - int(psutil.Process().memory_info().vms))


def total() -> int:
    """Return the bytes of memory that this process could use at most."""
    installed = int(psutil.virtual_memory().total)
    limit = cgroup.memory_limit()
    return installed if limit is None else min(installed, limit)


def resident(pid: int | None = None) -> int:
    """Return the resident bytes of this process or another one, including mapped model pages."""
    return int(psutil.Process(pid).memory_info().rss)


def peak_resident(pid: int | None = None) -> int:
    """Return the peak of resident bytes of this process or, on Linux, of another one."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if pid is None else resident(pid)
    # Not ru_maxrss: on Linux, a new process inherits its parent's peak in it.
    status = Path(f"/proc/{'self' if pid is None else pid}/status").read_text(encoding="utf-8")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else resident(pid)
