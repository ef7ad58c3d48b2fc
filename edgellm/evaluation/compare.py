"""Two evaluations, item by item: what another model, quantization or engine changed.

    comparison = compare(evaluation, base)
    comparison.total.difference, comparison.total.p_value

Pairs are far sharper than two intervals side by side: what is easy or hard for both cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgellm.evaluation.evaluation import Evaluation
from edgellm.evaluation.log import LoggedItem, LogHeader
from edgellm.measure.quality import Quality

RESAMPLES = 10_000
SEED = 20260101


@dataclass(frozen=True, slots=True)
class PairedScore:
    """Items that both answered: mean scores, and their difference (`score` - `base`) with a 95 % interval.

    The interval is a bootstrap's over items. `gained` are right now and were not in the base, `lost` the other way
    round; `p_value` is McNemar's exact one, that so uneven a split of them is chance.
    """

    name: str
    n_items: int
    score: float
    base: float
    difference: float
    low: float
    high: float
    n_gained: int
    n_lost: int
    p_value: float


@dataclass(frozen=True, slots=True)
class ChangedItem:
    """An item whose score changed, with both answers."""

    base: LoggedItem
    now: LoggedItem

    @property
    def change(self) -> float:
        """How much better it is now, from -1 to 1."""
        return self.now.score - self.base.score


@dataclass(frozen=True, slots=True)
class Comparison:
    """An evaluation against a base, by suite and in all; `n_unpaired` items are in one of them only, or have changed.

    `quality` has perplexity and KL divergence, None where they were not measured.
    """

    base: LogHeader
    total: PairedScore
    suites: tuple[PairedScore, ...]
    changed: tuple[ChangedItem, ...]
    n_unpaired: int
    quality: Quality | None = None


def compare(now: Evaluation, base: Evaluation) -> Comparison | None:
    """Pair the items of two evaluations that asked the same; None if there are none."""
    before = {item.key(): item for item in base.items}
    pairs = [
        (known, item)
        for item in now.items
        if (known := before.get(item.key())) is not None and known.messages == item.messages
    ]
    if not pairs:
        return None
    names = dict.fromkeys(item.suite for _, item in pairs)
    changed = [ChangedItem(known, item) for known, item in pairs if known.score != item.score]
    return Comparison(
        base.header,
        paired_score("all", pairs),
        tuple(paired_score(name, [pair for pair in pairs if pair[1].suite == name]) for name in names),
        tuple(sorted(changed, key=lambda each: -abs(each.change))),
        n_unpaired=len(now.items) + len(base.items) - 2 * len(pairs),
    )


def paired_score(name: str, pairs: Sequence[tuple[LoggedItem, LoggedItem]]) -> PairedScore:
    """The scores of pairs (base, now), of which there is at least one."""
    was = np.array([base.score for base, _ in pairs])
    is_ = np.array([now.score for _, now in pairs])
    low, high = bootstrap(is_ - was)
    n_gained = sum(now.is_right and not base.is_right for base, now in pairs)
    n_lost = sum(base.is_right and not now.is_right for base, now in pairs)
    return PairedScore(
        name, len(pairs), float(is_.mean()), float(was.mean()), float((is_ - was).mean()), low, high,
        n_gained, n_lost, mcnemar(n_gained, n_lost),
    )  # fmt: skip


def bootstrap(differences: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
    """The 95 % interval of a mean, from the percentiles of means of resampled values; always the same for the same."""
    # Only how often each value is drawn matters, and there are few different ones.
    values, counts = np.unique(differences, return_counts=True)
    n = len(differences)
    drawn = np.random.default_rng(SEED).multinomial(n, counts / n, RESAMPLES)
    means = drawn @ values / n
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def mcnemar(n_gained: int, n_lost: int) -> float:
    """The exact two-sided p-value of McNemar's test: changes in both directions are equally likely by chance."""
    n, fewer = n_gained + n_lost, min(n_gained, n_lost)
    if n > 2000:  # the exact sum becomes slow, and the normal distribution is as good
        return math.erfc(max(0.0, abs(n_gained - n_lost) - 1) / math.sqrt(2 * n))
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**n))
