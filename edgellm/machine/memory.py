"""Memory: what this process uses, and what it may still take.

available()  ->  3_900_000_000
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import psutil

from edgellm.machine import cgroup


def available() -> int:
    """Bytes that can be taken without swapping, within the limits of the cgroup and of the address space."""
    bounds = [int(psutil.virtual_memory().available), cgroup.memory_available(), _address_space_left()]
    return min(bound for bound in bounds if bound is not None)


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


def resident() -> int:
    """Resident bytes of this process now (mapped model pages included)."""
    return int(psutil.Process().memory_info().rss)


def peak_resident() -> int:
    """The most resident bytes that this process ever had."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not ru_maxrss: Linux carries the parent's peak over into it when a process is started.
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else resident()
