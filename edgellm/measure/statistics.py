"""Computes the statistics of next-token predictions: a model's perplexity, and its divergence from another.

    tally = PredictionTally()
    tally.add(targets, logits, base_logits)
    tally.perplexity().value, tally.divergence().mean

Everything is computed in float64 from the engine's float32 logits. Each statistic keeps one number per position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.engine.finite import require_finite

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# Positions whose distributions are in memory at once: 16 rows of a vocabulary of 150,000 take 19 MB in float64.
ROWS = 16


@dataclass(frozen=True, slots=True)
class Perplexity:
    """exp(mean of -ln p(next token)), and its standard error from sampling only these positions."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far a model's predictions diverge from a base's, over all positions.

    `mean`, `median`, `p99` and `maximum` describe the Kullback-Leibler divergence KL(base || model) in nats.
    `same_top` is the share of positions where both models have the same most likely token. `perplexity_change` is the
    model's perplexity over the base's, minus 1; its standard error is that of the paired differences.
    """

    mean: float
    median: float
    p99: float
    maximum: float
    same_top: float
    perplexity_change: float
    perplexity_change_error: float


def log_softmax(logits: npt.NDArray[np.floating]) -> Float64:
    """Return the natural logarithms of the probabilities, row by row.

    Raises:
        NotFinite: a row has no finite maximum, as when the model produces NaN.
    """
    shifted: Float64 = logits.astype(np.float64)
    require_finite(shifted)
    top = shifted.max(axis=-1, keepdims=True)
    shifted -= top
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def kl_divergence(base: Float64, model: Float64) -> Float64:
    """Return KL(base || model) of each row of log probabilities, in nats; tokens with base probability 0 add 0."""
    p = np.exp(base)
    with np.errstate(invalid="ignore"):  # -inf minus -inf and 0 times inf, replaced in the next step
        terms = p * (base - model)
    terms[p == 0] = 0
    # Rounding can give -1e-17 where the exact value is 0.
    divergence: Float64 = np.maximum(terms.sum(axis=-1), 0)
    return divergence


class PredictionTally:
    """The values measured so far, one per position and statistic."""

    def __init__(self) -> None:
        self._nll: list[Float64] = []
        self._base_nll: list[Float64] = []
        self._kld: list[Float64] = []
        self._same_top: list[npt.NDArray[np.bool_]] = []

    def __len__(self) -> int:
        """The number of positions so far."""
        return sum(map(len, self._nll))

    def add(self, targets: Sequence[int], logits: Float32, base_logits: Float32 | None = None) -> None:
        """Add positions: the actual next tokens, and the logits [len(targets), n_vocab] that predict them."""
        for start in range(0, len(targets), ROWS):
            rows = slice(start, start + ROWS)
            wanted = np.asarray(targets[rows])[:, None]
            log_p = log_softmax(logits[rows])
            self._nll.append(-np.take_along_axis(log_p, wanted, axis=-1)[:, 0])
            if base_logits is not None:
                base_log_p = log_softmax(base_logits[rows])
                self._base_nll.append(-np.take_along_axis(base_log_p, wanted, axis=-1)[:, 0])
                self._kld.append(kl_divergence(base_log_p, log_p))
                self._same_top.append(log_p.argmax(axis=-1) == base_log_p.argmax(axis=-1))

    def perplexity(self) -> Perplexity:
        """Return the perplexity of the model."""
        return _perplexity(np.concatenate(self._nll))

    def base_perplexity(self) -> Perplexity:
        """Return the perplexity of the base."""
        return _perplexity(np.concatenate(self._base_nll))

    def divergence(self) -> Divergence:
        """Return the divergence of the model from the base."""
        kld = np.concatenate(self._kld)
        with np.errstate(invalid="ignore"):
            ratio = _perplexity(np.concatenate(self._nll) - np.concatenate(self._base_nll))
        return Divergence(
            mean=float(kld.mean()),
            median=_quantile(kld, 0.5),
            p99=_quantile(kld, 0.99),
            maximum=float(kld.max()),
            same_top=float(np.concatenate(self._same_top).mean()),
            perplexity_change=ratio.value - 1,
            perplexity_change_error=ratio.error,
        )


def _quantile(values: Float64, share: float) -> float:
    """Return a quantile like numpy's, but infinite between two infinite values, where numpy returns NaN."""
    with np.errstate(invalid="ignore"):
        value = float(np.quantile(values, share))
    return math.inf if math.isnan(value) else value


def _perplexity(nll: Float64) -> Perplexity:
    """Return exp(mean) and, by the delta method, its standard error exp(mean) x standard error of the mean."""
    with np.errstate(over="ignore", invalid="ignore"):  # a token with probability 0 has infinite cost
        value = float(np.exp(nll.mean()))
        return Perplexity(value, value * float(nll.std()) / max(1, len(nll) - 1) ** 0.5)
