"""Bounds on a template: it ends, and it does not fill the memory.

    text = bounded(lambda: template.render(messages=messages))

A template is rendered in a thread of its own, which is interrupted when it computes too long or takes too much memory.
A single step cannot be interrupted, so those that may be large are checked before (`check_product`, `check_call`).
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from edgellm.machine.memory import resident

MAX_CHARACTERS = 10_000_000
MAX_SECONDS = 3.0
MAX_BYTES = 256 << 20
# Nearly all templates are done before anybody looks.
_FIRST_LOOK, _NEXT_LOOK = 0.05, 0.01
_WIDTH = re.compile(r"\d{7,}")
_T = TypeVar("_T")


class Excess(Exception):
    """The template is out of bounds."""


class TooLong(Excess):
    """It computes longer than `MAX_SECONDS`."""

    def __str__(self) -> str:
        return f"it is not done after {MAX_SECONDS:g} seconds of computing"


class TooMuchMemory(Excess):
    """It takes more than `MAX_BYTES`."""

    def __str__(self) -> str:
        return f"it takes more than {MAX_BYTES >> 20} MiB of memory"


def bounded(make: Callable[[], _T]) -> _T:
    """Return what `make` returns, or raise what it raises; `Excess` when it is out of bounds."""
    results: list[_T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(make())
        except BaseException as error:
            errors.append(error)

    thread, held = threading.Thread(target=work, daemon=True), resident()
    thread.start()
    began = time.monotonic()
    try:
        thread.join(_FIRST_LOOK)
        while thread.is_alive():
            if _seconds(thread, began) > MAX_SECONDS:
                _interrupt(thread, TooLong)
            elif resident() - held > MAX_BYTES:
                _interrupt(thread, TooMuchMemory)
            thread.join(_NEXT_LOOK)
    finally:
        if thread.is_alive():  # Ctrl-C
            _interrupt(thread, TooLong)
    if errors:
        raise errors[0]
    return results[0]


def _seconds(thread: threading.Thread, began: float) -> float:
    """CPU time of a thread; elapsed time where the system cannot tell, or the thread has just ended."""
    with contextlib.suppress(OSError, AttributeError):
        return time.clock_gettime(time.pthread_getcpuclockid(thread.ident or 0))
    return time.monotonic() - began


def _interrupt(thread: threading.Thread, error: type[Excess]) -> None:
    """Raise an exception between two steps of a thread."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(error))


def check_length(n_characters: int) -> None:
    """Raise `Excess` for a text or list that would be too long."""
    if n_characters > MAX_CHARACTERS:
        raise Excess(f"it makes {n_characters:,} characters at once")


def check_product(left: Any, right: Any) -> None:
    """Check a repeated text or list, and the product of two huge numbers."""
    if isinstance(left, int) and isinstance(right, int):
        check_length(16 * (left.bit_length() + right.bit_length()))  # slower than text
        return
    for repeated, count in ((left, right), (right, left)):
        if isinstance(repeated, Sequence) and isinstance(count, int):
            check_length(len(repeated) * count)


def check_call(text: str, name: str, arguments: Sequence[Any]) -> None:
    """Check a method or filter that makes a text of another: widths, format strings, replacements, joins."""
    values = [each for value in arguments for each in (value if isinstance(value, tuple) else (value,))]
    check_length(max((value for value in values if isinstance(value, int)), default=0))
    if name in ("format", "format_map", "%") and _WIDTH.search(text):
        raise Excess("it formats a text of millions of characters")
    if name == "replace" and len(values) >= 2 and isinstance(values[0], str) and isinstance(values[1], str):
        check_length(text.count(values[0]) * len(values[1]))
    if name == "join" and arguments and isinstance(arguments[0], Sequence):
        check_length(sum(len(text) + len(str(each)) for each in arguments[0]))
