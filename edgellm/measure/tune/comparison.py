"""Compares ways to compute the same work in interleaved rounds, and says which one is really faster.

    found = compare(probe, base, rivals, [Workload("decode", 64)], Rounds(seconds=10))
    found.winner(), found.ratio(rival, work).median

A rival wins if it was faster in every round and clearly so in the median (`Samples.is_gain`). Otherwise the base stays,
so noise chooses nothing. A rival is out with the first round that it loses: only the promising ones cost time.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from edgellm.measure.bench.result import LEAST_ROUNDS, MARGIN, Samples
from edgellm.models.fit.tuned_plan import Tuning
from edgellm.models.local.tune_records import Goal, TuneTrial

MOST_ROUNDS = 5
# What is slower than that at first sight is not looked at again, and the part of the work that the first look takes.
HOPELESS, LOOK = 0.5, 4


@dataclass(frozen=True, slots=True)
class Workload:
    """Tokens to generate one by one, or to read at once, after `depth` others."""

    goal: Goal
    n_tokens: int
    depth: int = 0


@dataclass(frozen=True, slots=True)
class TuneCandidate:
    """A way to compute, and what it is in words: what it differs in from the others."""

    tried: str
    tuning: Tuning
    kv_type: str = "F16"


class Probe(Protocol):
    """Computes and measures."""

    def rate(self, work: Workload, candidate: TuneCandidate, seed: int) -> float:
        """Return the tokens per second."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """How long to go on after the fewest rounds that count, in seconds, and whether losers stay to be measured."""

    seconds: float
    keeps_losers: bool = False
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class TuneComparison:
    """What was measured: the rates of each candidate, round by round; a look is a rate before all rounds."""

    base: TuneCandidate
    rivals: Sequence[TuneCandidate]
    work: Sequence[Workload]
    looks: dict[tuple[TuneCandidate, Workload], float] = field(default_factory=dict)
    rates: dict[tuple[TuneCandidate, Workload], list[float]] = field(default_factory=lambda: defaultdict(list))

    def ratio(self, rival: TuneCandidate, work: Workload) -> Samples:
        """The rival's rates over the base's of the same rounds, or those of the first look."""
        ours, theirs = self.rates[rival, work], self.rates[self.base, work]
        if not ours:
            return Samples((self.looks[rival, work] / self.looks[self.base, work],))
        return Samples(tuple(a / b for a, b in zip(ours, theirs, strict=False)))  # a loser has fewer rounds

    def is_ahead(self, rival: TuneCandidate) -> bool:
        """Whether it has won every round of some work so far."""
        return any(self.ratio(rival, work).lowest > 1 for work in self.work)

    def wins(self, rival: TuneCandidate) -> bool:
        """Whether it is faster for some work by more than noise, and for none much slower."""
        ratios = [self.ratio(rival, work) for work in self.work]
        return any(ratio.is_gain() for ratio in ratios) and all(ratio.median >= 1 - MARGIN for ratio in ratios)

    def winner(self) -> TuneCandidate:
        """The fastest of the rivals that win, or the base."""
        winners = [rival for rival in self.rivals if self.wins(rival)]
        return max(winners, key=self._gain, default=self.base)

    def _gain(self, rival: TuneCandidate) -> float:
        return math.prod(self.ratio(rival, work).median for work in self.work)

    @property
    def noise(self) -> float:
        """How far the rounds of the base differ: largest minus smallest over the median, at worst."""
        return max(Samples(tuple(self.rates[self.base, work])).spread for work in self.work)

    def trials(self, chosen: TuneCandidate) -> Iterator[TuneTrial]:
        """What was tried, for people."""
        for work in self.work:
            for each in (self.base, *self.rivals):
                rates = self.rates[each, work]
                median = Samples(tuple(rates) or (self.looks[each, work],)).median
                ratio = 1.0 if each is self.base else self.ratio(each, work).median
                yield TuneTrial(work.goal, each.tried, median, ratio, len(rates), work.depth, each is chosen)


def compare(
    probe: Probe, base: TuneCandidate, rivals: Sequence[TuneCandidate], work: Sequence[Workload], rounds: Rounds
) -> TuneComparison:
    """Measure the base and its rivals: a first look at each, which warms up, then rounds."""
    found = TuneComparison(base, rivals, work)
    began = rounds.clock()
    for each in (base, *rivals):
        for part in work:
            shorter = replace(part, n_tokens=max(1, part.n_tokens // LOOK))
            found.looks[each, part] = probe.rate(shorter, each, seed=0)
    alive = [rival for rival in rivals if any(found.ratio(rival, part).median > HOPELESS for part in work)]
    number = 0
    while number < LEAST_ROUNDS or (alive and number < MOST_ROUNDS and rounds.clock() - began < rounds.seconds):
        number += 1
        order = [base, *alive] if number % 2 else [*reversed(alive), base]
        for part in work:
            for each in order:
                found.rates[each, part].append(probe.rate(part, each, seed=number))
        alive = [rival for rival in alive if rounds.keeps_losers or found.is_ahead(rival)]
    return found
