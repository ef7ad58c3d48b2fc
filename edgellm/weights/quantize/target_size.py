"""Implements `--target-size 1.8GB`: finds the best quantization whose file is no larger.

choice = choose(1_800_000_000, candidates, n_bytes=lambda candidate: ...)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgellm.errors import UsageError
from edgellm.weights.quantize.mixes import LADDER, LADDER_BELOW, Mix, named_mix


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mix, with the type of the head if it differs from the mix's own."""

    mix: Mix
    head: str | None = None

    def __str__(self) -> str:
        return f"{self.mix} --head {self.head}" if self.head else self.mix.name


def candidates(*, ternary: str | None, has_imatrix: bool, head: str | None) -> Iterator[Candidate]:
    """Yield the candidates, best first.

    `ternary` is the current type of a ternary or binary model. Its weights stay exact: the first candidates only shrink
    its embedding, and the later ones also pack the same weights tighter, as TQ1_0. Nothing is smaller than a model with
    a scale for each 64 or 128 weights, whose embedding is like the rest.
    """
    if ternary in ("I2_S", "TQ2_0", "TQ1_0"):
        for name in dict.fromkeys((ternary, "TQ1_0")):
            for head_type in (head,) if head else ("F16", "Q8_0", "Q6_K", "Q5_K", "Q4_K"):
                yield Candidate(named_mix(name), head_type)
        return
    if ternary is not None:
        yield Candidate(named_mix(ternary), head)
        return
    for mix in (*LADDER, *(LADDER_BELOW if has_imatrix else ())):
        yield Candidate(mix, head)


def megabytes(n_bytes: int) -> str:
    """A size in a message; small ones keep their digits."""
    return f"{n_bytes / 1e6:,.0f} MB" if n_bytes >= 10**7 else f"{n_bytes / 1e6:.3g} MB"


def choose(limit: int, tries: Iterator[Candidate], n_bytes: Callable[[Candidate], int]) -> Candidate:
    """Return the first candidate of at most `limit` bytes; UsageError, with the smallest one, when there is none."""
    sizes: dict[Candidate, int] = {}
    for candidate in tries:
        sizes[candidate] = n_bytes(candidate)
        if sizes[candidate] <= limit:
            return candidate
    smallest = min(sizes, key=lambda candidate: sizes[candidate])
    raise UsageError(
        f"no quantization of this model is as small as {megabytes(limit)}",
        why=f"the smallest one, {smallest}, takes {megabytes(sizes[smallest])}",
        hint=f"--target-size {math.ceil(sizes[smallest] / 1e6)}MB",
        limit=limit,
        smallest=sizes[smallest],
    )
