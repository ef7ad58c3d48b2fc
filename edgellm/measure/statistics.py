"""The statistics of next-token predictions: perplexity of one model, divergence from another.

    tally = Tally()
    tally.add(targets, logits, base_logits)
    tally.perplexity().value, tally.divergence().mean

Everything is computed in float64 from the engine's float32 logits, and only one number for each position is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.errors import EngineError

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# Positions whose distributions are alive at once: 16 rows of a vocabulary of 150,000 are 19 MB in float64.
ROWS = 16


@dataclass(frozen=True, slots=True)
class Perplexity:
    """exp(mean of -ln p(token that came)) with the standard error of sampling these positions and no others."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Divergence:
    """How far a model's predictions are from a base's, over all positions.

    `mean`, `median`, `p99` and `maximum` are of the Kullback-Leibler divergence KL(base || model) in nats; `same_top`
    is the share of positions at which both find the same token likeliest; `perplexity_change` is the model's
    perplexity over the base's, minus 1, and its standard error is that of the paired differences.
    """

    mean: float
    median: float
    p99: float
    maximum: float
    same_top: float
    perplexity_change: float
    perplexity_change_error: float


def log_softmax(logits: npt.NDArray[np.floating]) -> Float64:
    """Natural logarithms of the probabilities, row by row.

    Raises:
        EngineError: a row has no finite maximum; the model does not compute numbers.
    """
    shifted: Float64 = logits.astype(np.float64)
    top = shifted.max(axis=-1, keepdims=True)
    if not np.isfinite(top).all():
        raise EngineError("the model's logits are not numbers", why="the file is damaged, or its weights overflow")
    shifted -= top
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def kl_divergence(base: Float64, model: Float64) -> Float64:
    """KL(base || model) of each row of log probabilities, in nats; what the base excludes counts nothing."""
    p = np.exp(base)
    with np.errstate(invalid="ignore"):  # -inf minus -inf and 0 times inf, replaced in the next step
        terms = p * (base - model)
    terms[p == 0] = 0
    # Rounding can leave -1e-17 where the truth is 0.
    divergence: Float64 = np.maximum(terms.sum(axis=-1), 0)
    return divergence


class Tally:
    """What was measured so far, one number for each position and statistic."""

    def __init__(self) -> None:
        self._nll: list[Float64] = []
        self._base_nll: list[Float64] = []
        self._kld: list[Float64] = []
        self._same_top: list[npt.NDArray[np.bool_]] = []

    def __len__(self) -> int:
        """Positions so far."""
        return sum(map(len, self._nll))

    def add(self, targets: Sequence[int], logits: Float32, base_logits: Float32 | None = None) -> None:
        """Count positions: the tokens that came, and the logits [len(targets), n_vocab] from which to predict them."""
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
        """The model's."""
        return _perplexity(np.concatenate(self._nll))

    def base_perplexity(self) -> Perplexity:
        """The base's."""
        return _perplexity(np.concatenate(self._base_nll))

    def divergence(self) -> Divergence:
        """The model's from the base."""
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
    """As numpy's, but infinite between two infinite values, where it would be no number."""
    with np.errstate(invalid="ignore"):
        value = float(np.quantile(values, share))
    return math.inf if math.isnan(value) else value


def _perplexity(nll: Float64) -> Perplexity:
    """exp of the mean, and by the delta method exp(mean) x standard error of the mean."""
    with np.errstate(over="ignore", invalid="ignore"):  # a token that a model excludes costs infinitely much
        value = float(np.exp(nll.mean()))
        return Perplexity(value, value * float(nll.std()) / max(1, len(nll) - 1) ** 0.5)
