"""Ctrl-C while the program starts: it leaves at once, without a traceback.

    leave_on_interrupt()      # importing takes a while, and there is nothing to put away yet
    raise_on_interrupt()      # from here on Ctrl-C is an exception, as usual

A `KeyboardInterrupt` within an import is often lost, or comes out as another error. This module imports nothing that is
not in the interpreter already: `signal` would load `enum` first.
"""

import _signal  # type: ignore[import-not-found]
import os

# `ExitCode.INTERRUPTED`.
EXIT_CODE = 130


def leave_on_interrupt() -> None:
    """End the process at Ctrl-C from now on, unless it is ignored, as in the background of a script."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _leave)


def raise_on_interrupt() -> None:
    """Make Ctrl-C an exception again."""
    if _signal.getsignal(_signal.SIGINT) is _leave:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def _leave(_: int, __: object) -> None:
    os._exit(EXIT_CODE)
