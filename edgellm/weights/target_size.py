"""`--target-size 1.8GB`: the best quantization of a model whose file is no larger.

choice = choose(1_800_000_000, candidates, n_bytes=lambda candidate: ...)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgellm.errors import UsageError
from edgellm.weights.mixes import LADDER, LADDER_BELOW, Mix, named_mix


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mix, with the type of the head where it is not the mix's own."""

    mix: Mix
    head: str | None = None

    def __str__(self) -> str:
        return f"{self.mix} --head {self.head}" if self.head else self.mix.name


def candidates(*, ternary: str | None, has_imatrix: bool, head: str | None) -> Iterator[Candidate]:
    """What to try, the best first.

    A ternary model keeps its weights exactly, so first only its embedding shrinks, then TQ1_0 packs the same
    weights tighter; `ternary` is the type it has now.
    """
    if ternary is not None:
        for name in dict.fromkeys((ternary, "TQ1_0")):
            for head_type in (head,) if head else ("F16", "Q8_0", "Q6_K", "Q5_K", "Q4_K"):
                yield Candidate(named_mix(name), head_type)
        return
    for mix in (*LADDER, *(LADDER_BELOW if has_imatrix else ())):
        yield Candidate(mix, head)


def choose(limit: int, tries: Iterator[Candidate], n_bytes: Callable[[Candidate], int]) -> Candidate:
    """Return the first candidate whose file has at most `limit` bytes; UsageError names the smallest there is."""
    sizes: dict[Candidate, int] = {}
    for candidate in tries:
        sizes[candidate] = n_bytes(candidate)
        if sizes[candidate] <= limit:
            return candidate
    smallest = min(sizes, key=lambda candidate: sizes[candidate])
    raise UsageError(
        f"no quantization of this model is as small as {limit / 1e6:,.0f} MB",
        why=f"the smallest that was tried, {smallest}, makes {sizes[smallest] / 1e6:,.0f} MB",
        hint=f"--target-size {math.ceil(sizes[smallest] / 1e6)}MB",
        limit=limit,
        smallest=sizes[smallest],
    )
