"""Perplexity and divergence against values worked out by hand."""

from math import exp, inf, log, nan, sqrt

import numpy as np
import pytest

from edgellm.errors import EngineError
from edgellm.measure.statistics import ROWS, PredictionTally, kl_divergence, log_softmax

# Probabilities 1/2, 1/4, 1/4 and 1/4, 1/2, 1/4, as logits plus a constant that must not matter.
HALF_FIRST = np.log(np.array([2, 1, 1], np.float32)) + 7
HALF_SECOND = np.log(np.array([1, 2, 1], np.float32)) - 3
LN2 = log(2)


def rows(*logits: np.ndarray[tuple[int], np.dtype[np.float32]]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.stack(logits).astype(np.float32)


def test_two_positions_by_hand() -> None:
    """The actual tokens have the probabilities 1/4 and 1/4 in the model, and 1/2 and 1/4 in the base."""
    tally = PredictionTally()
    tally.add([0, 1], rows(HALF_SECOND, HALF_FIRST), rows(HALF_FIRST, HALF_FIRST))
    assert len(tally) == 2
    model, base, divergence = tally.perplexity(), tally.base_perplexity(), tally.divergence()
    assert (model.value, model.error) == (pytest.approx(4), pytest.approx(0, abs=1e-6))
    # -ln p is ln 2 and ln 4: mean 1.5 ln 2, standard deviation ln 2 / 2, divided by sqrt(n - 1) = 1.
    assert (base.value, base.error) == (pytest.approx(2**1.5), pytest.approx(2**1.5 * LN2 / 2))
    # KL = 1/2 ln(1/2 : 1/4) + 1/4 ln(1/4 : 1/2) = ln 2 / 4 at the first position, 0 at the second.
    assert divergence.mean == pytest.approx(LN2 / 8, abs=1e-7)
    assert divergence.median == pytest.approx(LN2 / 8, abs=1e-7)
    assert divergence.p99 == pytest.approx(0.99 * LN2 / 4, abs=1e-7)
    assert divergence.maximum == pytest.approx(LN2 / 4, abs=1e-7)
    assert divergence.same_top == 0.5
    # The differences of -ln p are ln 2 and 0.
    assert divergence.perplexity_change == pytest.approx(sqrt(2) - 1, abs=1e-6)
    assert divergence.perplexity_change_error == pytest.approx(sqrt(2) * LN2 / 2, abs=1e-6)


def test_positions_in_one_call_or_in_many_are_the_same() -> None:
    random = np.random.default_rng(5)
    n = 3 * ROWS + 5
    logits, base = (random.normal(0, 3, (n, 11)).astype(np.float32) for _ in range(2))
    targets = random.integers(0, 11, n).tolist()
    together, singly = PredictionTally(), PredictionTally()
    together.add(targets, logits, base)
    for i in range(n):
        singly.add(targets[i : i + 1], logits[i : i + 1], base[i : i + 1])
    assert len(together) == n
    assert together.perplexity() == singly.perplexity() and together.base_perplexity() == singly.base_perplexity()
    assert together.divergence() == singly.divergence()
    p = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(axis=1, keepdims=True)
    q = np.exp(base.astype(float)) / np.exp(base.astype(float)).sum(axis=1, keepdims=True)
    assert together.perplexity().value == pytest.approx(exp(-np.log(p[np.arange(n), targets]).mean()))
    assert together.divergence().mean == pytest.approx((q * np.log(q / p)).sum(axis=1).mean())
    assert together.divergence().same_top == (p.argmax(axis=1) == q.argmax(axis=1)).mean()


def test_a_model_does_not_diverge_from_itself() -> None:
    tally = PredictionTally()
    logits = np.random.default_rng(6).normal(0, 9, (20, 300)).astype(np.float32)
    tally.add([3] * 20, logits, logits)
    found = tally.divergence()
    assert (found.mean, found.maximum, found.same_top, found.perplexity_change) == (0, 0, 1, 0)


def test_a_token_that_the_model_excludes_costs_infinitely_much() -> None:
    excluded = np.array([0, -inf, 0], np.float32)
    tally = PredictionTally()
    tally.add([1], rows(excluded), rows(HALF_FIRST))
    assert tally.perplexity().value == inf and tally.divergence().mean == inf
    # Tokens that the base excludes add 0: 1/2, 0, 1/2 against 1/2, 1/4, 1/4 gives 1/2 ln 2.
    assert kl_divergence(log_softmax(rows(excluded)), log_softmax(rows(HALF_FIRST))) == pytest.approx(LN2 / 2)


@pytest.mark.parametrize("wrong", [nan, inf])
def test_logits_that_are_no_numbers(wrong: float) -> None:
    with pytest.raises(EngineError, match="computes no numbers"):
        PredictionTally().add([0], np.array([[0, wrong, 1]], np.float32))
