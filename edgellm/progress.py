"""How services tell what they are doing without knowing who watches.

A service takes `report: Report = silent` and calls it as it goes; the command decides whether that is a bar
on a terminal, a plain line every few seconds in a log, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """One moment of a long operation.

    `stage` is what a person reads ("building libraries"); `done` and `total` are counts of `unit` ("B" for
    bytes, "steps"); `total` is None while unknown; `detail` is a figure that comes along ("perplexity 6.42").
    """

    stage: str
    done: int = 0
    total: int | None = None
    unit: str = "steps"
    detail: str = ""


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report nothing."""
