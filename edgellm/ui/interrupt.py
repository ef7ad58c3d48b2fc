"""Ctrl-C while a model answers: once stops the answer, twice ends the program.

with Interrupt() as interrupt:
    generate(..., interrupted=interrupt.requested)
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interrupt:
    """Turns the first SIGINT into a request that is looked at between tokens."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def requested(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._event.is_set()

    def _on_signal(self, _: int, __: FrameType | None) -> None:
        if self._event.is_set():
            raise KeyboardInterrupt
        self._event.set()

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        signal.signal(signal.SIGINT, self._before)
