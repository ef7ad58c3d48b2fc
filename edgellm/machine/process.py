"""What a process uses: memory, and the CPU time of all its threads; ours, or one that we started.

usage().cpu_seconds
usage(worker.pid).peak_resident_bytes
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

from edgellm.machine import memory


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes in memory now and at most (mapped model pages included), seconds of user and system time until now."""

    resident_bytes: int
    peak_resident_bytes: int
    cpu_seconds: float


def usage(pid: int | None = None) -> Usage:
    """What this process uses, or another one; the peak of another one is known on Linux only, elsewhere it is now's.

    Raises:
        ProcessLookupError: there is none of that number any more, or it is not ours to look at.
    """
    try:
        resident = memory.resident(pid)
        # The two are read one after the other, by ways that count a little differently.
        peak = max(resident, memory.peak_resident(pid))
        times = psutil.Process(pid).cpu_times()
    except (psutil.Error, OSError) as error:
        raise ProcessLookupError(f"process {pid} cannot be looked at") from error
    if not resident:  # it has ended, and waits to be reaped
        raise ProcessLookupError(f"process {pid} has ended")
    return Usage(resident, peak, float(times.user + times.system))


def cpu_seconds() -> float:
    """User and system time of all threads of this process until now, those that have ended included."""
    return time.process_time()
