"""Memory: what a process uses, and what this one may still take.

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
    """Bytes that may still be taken: of memory, and of address space where that is limited."""

    available: int
    address_space: int | None = None


def room() -> Room:
    """What this process may take without swapping, within the limits of the cgroup and of the address space."""
    bounds = [int(psutil.virtual_memory().available), cgroup.memory_available()]
    return Room(min(bound for bound in bounds if bound is not None), _address_space_left())


def available() -> int:
    """The tightest of the limits, in bytes."""
    now = room()
    return now.available if now.address_space is None else min(now.available, now.address_space)


def _address_space_left() -> int | None:
    """Bytes below RLIMIT_AS (`ulimit -v`), or None when there is no such limit."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    return max(0, limit - int(psutil.Process().memory_info().vms))


def total() -> int:
    """Bytes of memory that this process could ever have."""
    installed = int(psutil.virtual_memory().total)
    limit = cgroup.memory_limit()
    return installed if limit is None else min(installed, limit)


def resident(pid: int | None = None) -> int:
    """Resident bytes of this process now, or of another one (mapped model pages included)."""
    return int(psutil.Process(pid).memory_info().rss)


def peak_resident(pid: int | None = None) -> int:
    """The most resident bytes that this process ever had, or on Linux another one."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if pid is None else resident(pid)
    # Not ru_maxrss: Linux carries the parent's peak over into it when a process is started.
    status = Path(f"/proc/{'self' if pid is None else pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else resident(pid)
