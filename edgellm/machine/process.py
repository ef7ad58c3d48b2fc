"""Measures the memory and the CPU time of a process: this one, or one that it started.

usage().cpu_seconds
usage(worker.pid).peak_resident_bytes
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil

from edgellm.machine import memory


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """Resident bytes now and at the peak, including mapped model pages; user plus system time in seconds."""

    resident_bytes: int
    peak_resident_bytes: int
    cpu_seconds: float


def usage(pid: int | None = None) -> ProcessUsage:
    """Return the usage of this process or another one. Except on Linux, another one's peak is its current value.

    Raises:
        ProcessLookupError: the process no longer exists, or may not be inspected.
    """
    try:
        resident = memory.resident(pid)
        # The two values are read one after the other, from sources that count a little differently.
        peak = max(resident, memory.peak_resident(pid))
        times = psutil.Process(pid).cpu_times()
    except (psutil.Error, OSError) as error:
        raise ProcessLookupError(f"process {pid} cannot be inspected") from error
    if not resident:  # a zombie: it has ended and waits to be reaped
        raise ProcessLookupError(f"process {pid} has ended")
    return ProcessUsage(resident, peak, float(times.user + times.system))


def cpu_seconds() -> float:
    """Return the user plus system time of all threads of this process, including those that have ended."""
    return time.process_time()


def busy_cores(seconds: float) -> float:
    """Watch the machine for so many seconds; return how many of its hardware threads were busy in the mean."""
    return psutil.cpu_percent(interval=seconds) / 100 * (psutil.cpu_count() or 1)
