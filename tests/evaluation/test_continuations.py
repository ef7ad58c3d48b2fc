"""Continuations of one text over a scripted engine: what is computed, what is shared, and the log-likelihoods."""

from __future__ import annotations

import numpy as np
import pytest

from edgellm.engine.fake import END, FakeModel, FakeSequences
from edgellm.evaluation.harness.continuations import CELL, Continuation, ContinuationScorer

TABLE = np.random.default_rng(3).standard_normal((END + 1, END + 1)).astype(np.float32)
# The greedy continuation of "b" is the most likely byte after it.
BEST = int(TABLE[ord("b")].argmax())


def open_scorer(n_seq: int = 5, n_ctx: int = 256) -> tuple[ContinuationScorer, FakeSequences]:
    sequences = FakeModel(table=TABLE).open_sequences(n_seq=n_seq, n_ctx=n_ctx, n_batch=CELL, n_threads=1, shared=True)
    return ContinuationScorer(sequences), sequences


def continuation(before: str, scored: str) -> Continuation:
    return Continuation((*before.encode(), *scored.encode()), len(scored))


def expected(each: Continuation) -> float:
    rows = TABLE - np.log(np.exp(TABLE).sum(axis=1, keepdims=True))
    pairs = list(zip(each.tokens, each.tokens[1:], strict=False))[each.n_before - 1 :]
    return float(sum(rows[first, second] for first, second in pairs))


def test_what_choices_have_in_common_is_computed_once() -> None:
    question = "x" * 100 + "b"
    group = [continuation(question, answer) for answer in ("a", "bc", "bcd", "")] + [
        Continuation((*question.encode(), BEST), 1)
    ]
    scorer, sequences = open_scorer()
    found = scorer.score(group)
    assert [each.value for each in found] == pytest.approx([expected(each) for each in group], abs=1e-4)
    assert [each.is_greedy for each in found] == [False, False, False, True, True]
    # The question in cells of 64, then what comes before the last token of the longer answers.
    assert sequences.decoded == [{0: 64}, {0: 37}, {1: 1, 2: 2}] and scorer.n_computed == 104
    # The next question shares one whole cell; nothing of an answer is left in the cache.
    assert [len(tokens) for tokens in sequences.tokens] == [101, 0, 0, 0, 0]
    scorer.score([continuation("x" * 90, "a")])
    assert sequences.decoded[3:] == [{0: 26}]


def test_other_texts_share_what_they_begin_with() -> None:
    """Two sentences that differ before the answer, as WinoGrande's do, and two that have nothing in common."""
    scorer, sequences = open_scorer()
    group = [continuation("the cat", " sat"), continuation("the dog", " sat")]
    assert [each.value for each in scorer.score(group)] == pytest.approx([expected(each) for each in group], abs=1e-4)
    assert sequences.decoded == [{0: 4}, {1: 6, 2: 6}]
    apart = [continuation("a", "bc"), continuation("d", "ef")]
    assert [each.value for each in scorer.score(apart)] == pytest.approx([expected(each) for each in apart], abs=1e-4)


@pytest.mark.parametrize(("n_seq", "n_ctx"), [(2, 256), (3, 256), (9, 110)])
def test_more_than_fits_at_once_is_computed_in_turns(n_seq: int, n_ctx: int) -> None:
    """Few sequences, little room, and an answer longer than a batch."""
    scorer, sequences = open_scorer(n_seq, n_ctx)
    group = [continuation("b" * 10, answer * length) for answer, length in (("a", 20), ("c", 30), ("d", 99), ("e", 40))]
    assert [each.value for each in scorer.score(group)] == pytest.approx([expected(each) for each in group], abs=1e-3)
    assert all(sum(counts.values()) <= CELL for counts in sequences.decoded)
