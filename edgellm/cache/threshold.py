"""When a similar question may have a stored answer: the rule of vCache (arXiv 2502.03771), for each entry.

    rule = Threshold(start=0.70)
    rule.chance_to_ask(0.82, observations, error=0.03)   ->  0.0: the stored answer is good enough

An entry knows how often its answer was right when the model was asked again: pairs of similarity and right or wrong.
The chance of being right is a logistic curve over the similarity, with a threshold and a slope that are not known. The
rule takes what holds with confidence: with probability 1 - e the curve lies above its e-quantile q, so the answer is
right with at least (1 - e) q; the best e counts. If that is less than 1 - error, the model is asked so often that all
answers together are: vCache's theorem 4.1.

The curve's parameters lie on a grid, so that few and perfectly separated observations need no special case. Before the
first observation a threshold is likely to lie where it lay for measured pairs (`start`); that can be wrong for one
entry, and its own observations then move it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Observation = tuple[float, bool]
Grid = npt.NDArray[np.float64]
SLOPES = (8.0, 16.0, 32.0, 64.0, 128.0)
N_THRESHOLDS = 61
# Measured thresholds lie this far below the similarity from which on answers are given at an error of 3 %.
MARGIN, SPREAD = 0.1, 0.02
# The weight of a threshold that may lie anywhere.
ANYWHERE = 0.01


@dataclass(frozen=True, slots=True)
class Threshold:
    """The rule with its knowledge before the first observation; with `start` None it has none, as in the paper."""

    start: float | None = None

    def chance_right(self, similarity: float, observations: Iterable[Observation] = ()) -> float:
        """How likely a stored answer is right at this similarity, at least."""
        thresholds, slopes, weights = _prior(self.start)
        curve = _logistic(slopes * (similarity - thresholds))
        known = list(observations)
        if known:
            seen, right = (np.array(column)[:, None] for column in zip(*known, strict=True))
            each = _logistic(slopes * (seen - thresholds))
            likely = np.log(weights) + np.log(np.where(right, each, 1 - each)).sum(axis=0)
            weights = np.exp(likely - likely.max())
            weights /= weights.sum()
        order = np.argsort(curve)
        below = np.concatenate([[0.0], np.cumsum(weights[order])[:-1]])
        return float(np.max((1 - below) * curve[order]))

    def chance_to_ask(self, similarity: float, observations: Iterable[Observation], error: float) -> float:
        """How often to ask the model all the same, from 0 to 1, so that at most `error` of all answers are wrong."""
        right = self.chance_right(similarity, observations)
        return 0.0 if right >= 1 - error else (1 - error - right) / (1 - right)


@lru_cache(maxsize=8)
def _prior(start: float | None) -> tuple[Grid, Grid, Grid]:
    """The thresholds, slopes and weights of the grid [n_thresholds * n_slopes]; the weights sum to 1."""
    thresholds, slopes = (
        each.ravel() for each in np.meshgrid(np.linspace(0, 1.2, N_THRESHOLDS), np.array(SLOPES), indexing="ij")
    )
    flat = np.full(thresholds.shape, 1 / thresholds.size)
    if start is None:
        return thresholds, slopes, flat
    likely = np.exp(-0.5 * ((thresholds - (start - MARGIN)) / SPREAD) ** 2) * (slopes >= 64)
    return thresholds, slopes, (1 - ANYWHERE) * likely / likely.sum() + ANYWHERE * flat


def _logistic(values: Grid) -> Grid:
    return np.clip(1 / (1 + np.exp(-values)), 1e-9, 1 - 1e-9)
