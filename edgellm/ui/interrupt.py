"""Ctrl-C while a model answers: once stops the answer, twice ends the program.

with Interrupt() as interrupt:
    generate(..., interrupted=interrupt.requested)

Meanwhile the terminal does not echo: neither ^C nor what is typed ahead lands in the middle of the answer.
"""

from __future__ import annotations

import os
import signal
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

STDIN = 0
# Where tcgetattr keeps the flags of the line discipline, ECHO among them.
LOCAL_FLAGS = 3


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
        self._echoed = _set_echo(False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._echoed:
            _set_echo(True)
        signal.signal(signal.SIGINT, self._before)


@contextmanager
def echoing() -> Iterator[None]:
    """While something is asked in the middle of an answer, what is typed shows."""
    was_on = _set_echo(True)
    try:
        yield
    finally:
        if not was_on:
            _set_echo(False)


def _set_echo(wanted: bool) -> bool:
    """Turn the echo of standard input's terminal on or off; returns whether it was on."""
    with suppress(OSError, termios.error):  # no terminal
        if os.tcgetpgrp(STDIN) != os.getpgrp():
            return False  # in the background, where changing the terminal would stop the process
        attributes = termios.tcgetattr(STDIN)
        before = bool(attributes[LOCAL_FLAGS] & termios.ECHO)
        attributes[LOCAL_FLAGS] = attributes[LOCAL_FLAGS] & ~termios.ECHO | (termios.ECHO if wanted else 0)
        termios.tcsetattr(STDIN, termios.TCSADRAIN, attributes)
        return before
    return False
