"""Random draws that are the same in every version of Python.

    draw = SeededRandom("arithmetic/1/sum-2-en-1")
    draw.integer(10, 99), draw.pick(["red", "blue"])

Python guarantees only the sequence of `random.Random(seed).random()`, so every draw is made from that.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class SeededRandom:
    """Draws from a seed, which is any text."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)  # noqa: S311 (nothing secret)

    def integer(self, least: int, most: int) -> int:
        """An integer from `least` to `most`, both included."""
        return least + int(self._random.random() * (most - least + 1))

    def pick(self, values: Sequence[T]) -> T:
        """One of the values."""
        return values[self.integer(0, len(values) - 1)]

    def some(self, values: Sequence[T], count: int) -> list[T]:
        """So many different values, in random order."""
        rest = list(values)
        return [rest.pop(self.integer(0, len(rest) - 1)) for _ in range(count)]

    def number(self, digits: int) -> int:
        """A number of so many digits, at least 2."""
        return self.integer(max(2, 10 ** (digits - 1)), 10**digits - 1)
