"""When to ask a server again: which failures are temporary, how long to wait, and when to give up.

patience = Patience()
patience.wait(error, pauses, report)      # or raises the error, when there is no pause left
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from edgellm.errors import NetworkError
from edgellm.progress import Progress, Report


class Transient(NetworkError):
    """A temporary failure; `wait` is for how many seconds the server asks to be left alone, if it does."""

    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """When to give up on a server: pauses between failures in a row, the longest wait it may ask for, its least rate.

    Every byte that arrives starts the pauses again; a rate below `least_rate` bytes per second over `window` seconds
    ends the download, whatever arrives.
    """

    pauses: Sequence[float] = (1, 2, 4, 8, 8)
    longest_wait: float = 300
    window: float = 60
    least_rate: float = 1000
    sleep: Callable[[float], None] = time.sleep

    def wait(self, error: Transient, pauses: Iterator[float], report: Report) -> None:
        """Wait before the next attempt; raises `error` if there is none left, or the wait would be too long."""
        pause = next(pauses, None)
        if pause is None:
            raise error
        if error.wait is not None:
            pause = error.wait
        if pause > self.longest_wait:
            error.hint = f"the same again in {pause:.0f} s"
            raise error
        report(Progress(f"{error.what}: trying again in {pause:.0f} s"))
        self.sleep(pause)


class SpeedWatch:
    """Counts bytes, and raises when a transfer has become too slow to ever finish."""

    def __init__(self, patience: Patience, name: str) -> None:
        self._patience, self._name = patience, name
        self._since, self._bytes = time.monotonic(), 0

    def __call__(self, n_bytes: int) -> None:
        """Count what has arrived; NetworkError when a whole window brought too little."""
        self._bytes += n_bytes
        seconds = time.monotonic() - self._since
        if seconds < self._patience.window:
            return
        if self._bytes < self._patience.least_rate * seconds:
            rate = self._bytes / seconds
            why = f"{rate:.0f} bytes a second, less than {self._patience.least_rate:.0f}"
            hint = "the same again later; what has arrived is kept"
            raise NetworkError(f"{self._name} arrives too slowly", why=why, hint=hint)
        self._since, self._bytes = time.monotonic(), 0


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks for, in `Retry-After` (a number or a date) or `RateLimit`."""
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value[:9])
    if found := re.search(r"\bt\s*=\s*(\d{1,9})", headers.get("RateLimit", "") if not value else ""):
        return float(found[1])
    with contextlib.suppress(ValueError):
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
    return None
