"""Identifies other processes of this user reliably, and ends them.

process = identify(os.getpid())
process.is_alive

The system reuses process ids, so a process is identified by its id and its start time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass

import psutil

# The start time is relative to the boot, whose time shifts a little when the clock is set.
TOLERANCE_SECONDS = 2.0
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Identity:
    """A process: its id and its start time, in seconds since 1970."""

    pid: int
    started: float

    @property
    def is_alive(self) -> bool:
        """Whether this same process is still running."""
        with contextlib.suppress(psutil.Error, ValueError, OverflowError):
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < TOLERANCE_SECONDS
            return same and process.status() != psutil.STATUS_ZOMBIE
        return False

    def end(self, grace: float) -> bool:
        """Terminate the process, and kill it after `grace` seconds; return whether it ended without being killed.

        Raises:
            PermissionError: it belongs to another user.
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
    """Return the process that has this id now, or None."""
    with contextlib.suppress(psutil.Error, ValueError, OverflowError):
        return Identity(pid, psutil.Process(pid).create_time())
    return None
