"""Other processes of this user: whether one still is who it was, what memory it takes, and ending it.

who = identify(os.getpid())
who.is_alive, resident(who.pid)

A process id alone says little: it is given again to others. Its start time tells them apart.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

# The start is told relative to the boot, whose time moves a little when the clock is set.
TOLERANCE_SECONDS = 2.0
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Identity:
    """A process: its id, and when it began, in seconds since 1970."""

    pid: int
    started: float

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        with contextlib.suppress(psutil.Error, ValueError, OverflowError):
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < TOLERANCE_SECONDS
            return same and process.status() != psutil.STATUS_ZOMBIE
        return False

    def end(self, grace: float) -> bool:
        """Ask it to end, and make it after `grace` seconds; whether it went by itself.

        Raises:
            PermissionError: it belongs to somebody else.
        """
        self._send(signal.SIGTERM)
        if self._gone_within(grace):
            return True
        self._send(signal.SIGKILL)
        self._gone_within(grace + 5)
        return False

    def _send(self, signal_number: int) -> None:
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal_number)

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.is_alive:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True


def identify(pid: int) -> Identity | None:
    """Who has that process id now."""
    with contextlib.suppress(psutil.Error, ValueError, OverflowError):
        return Identity(pid, psutil.Process(pid).create_time())
    return None


def resident(pid: int) -> int | None:
    """Resident bytes of a process now, mapped model pages included; None when it is gone."""
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return None


def peak_resident(pid: int) -> int | None:
    """The most resident bytes that it ever had, where the system tells (Linux)."""
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    return None
