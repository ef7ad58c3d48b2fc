"""Lets services report progress without knowing how it is shown.

A service takes `report: Report = silent` and calls it as it works:

    report(Progress("building the libraries", done=12, total=345))

The command decides whether that becomes a bar on a terminal, a line every few seconds in a log, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a long operation.

    `stage` is text for people ("building the libraries"). `done` and `total` count `unit` ("B" for bytes, or
    "steps"); `total` is None while unknown. `detail` is an additional figure ("perplexity 6.42").
    """

    stage: str
    done: int = 0
    total: int | None = None
    unit: str = "steps"
    detail: str = ""


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Discard the report."""


@dataclass(frozen=True, slots=True)
class Observer:
    """Receives the progress of a measurement, and can stop it: `interrupted` is polled between batches."""

    report: Report = silent
    interrupted: Callable[[], bool] = lambda: False


UNOBSERVED = Observer()
