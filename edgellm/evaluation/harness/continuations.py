"""Log-likelihoods of several continuations of one text, whose common beginning is computed once.

    scorer = ContinuationScorer(model.open_sequences(n_seq=8, n_ctx=2048, n_batch=CELL, n_threads=4, shared=True))
    scorer.score([Continuation(question + paris, len(paris)), Continuation(question + berlin, len(berlin))])

The common beginning is computed in cells of 64 tokens that begin at multiples of 64, and only whole cells that are the
same as those of the text before are kept; then all continuations are computed together. So the sizes of the batches,
and with them the rounding of quantized weights, depend on these continuations alone: the same question gives the same
numbers to the last bit, whatever was scored before, and after a kill too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.engine.base import Sequences, common_length
from edgellm.run.scores import score_rows

CELL = 64
# The sequence of the common beginning; the continuations have the others.
TRUNK = 0


@dataclass(frozen=True, slots=True)
class Continuation:
    """Tokens of a text, of which the last `n_scored` are scored; at least one token comes before them.

    `is_cut`: the text was longer, and lost its beginning.
    """

    tokens: tuple[int, ...]
    n_scored: int
    is_cut: bool = False

    @property
    def n_before(self) -> int:
        """The tokens that are given."""
        return len(self.tokens) - self.n_scored


@dataclass(frozen=True, slots=True)
class LogLikelihood:
    """The natural log-probability of a continuation, and whether greedy decoding would write it."""

    value: float
    is_greedy: bool


class ContinuationScorer:
    """Scores one group of continuations after another; `n_computed` counts the tokens that went through the model."""

    def __init__(self, sequences: Sequences) -> None:
        self._sequences = sequences
        self.n_computed = 0

    def score(self, group: Sequence[Continuation]) -> list[LogLikelihood]:
        """The log-likelihoods of some continuations, in their order."""
        n_trunk = common_beginning(group)
        if n_trunk == 0:
            return [self.score([each])[0] for each in group]
        before = self._compute_trunk(group[0].tokens[:n_trunk])
        found: dict[int, LogLikelihood] = {}
        for batch in self._batches(group, n_trunk):
            for index, rows in self._compute_branches(batch, n_trunk).items():
                found[index] = likelihood(group[index], np.concatenate([before, rows]))
        return [found.get(index) or likelihood(each, before) for index, each in enumerate(group)]

    def _compute_trunk(self, trunk: Sequence[int]) -> npt.NDArray[np.float32]:
        """Bring the common beginning into the cache; return the logits [1, n_vocab] after it."""
        sequences = self._sequences
        same = common_length(sequences.tokens[TRUNK], list(trunk))
        done = sequences.keep(TRUNK, min(same, len(trunk) - 1) // CELL * CELL)
        for start in range(done, len(trunk), CELL):
            self._count({TRUNK: trunk[start : start + CELL]})
            sequences.decode({TRUNK: trunk[start : start + CELL]})
        return sequences.logits(TRUNK)[np.newaxis]

    def _batches(self, group: Sequence[Continuation], n_trunk: int) -> Iterator[dict[int, Sequence[int]]]:
        """What comes after the beginning, by its place in the group, as much as can be computed together.

        The last token of each is left out: nothing comes after it. A continuation longer than a batch is alone.
        """
        batch: dict[int, Sequence[int]] = {}
        room = min(self._sequences.n_batch, self._sequences.n_ctx - n_trunk)
        for index, each in enumerate(group):
            rest = each.tokens[n_trunk:-1]
            full = len(batch) == self._sequences.n_seq - 1 or sum(map(len, batch.values())) + len(rest) > room
            if batch and full:
                yield batch
                batch = {}
            if rest:
                batch[index] = rest
        if batch:
            yield batch

    def _compute_branches(self, batch: dict[int, Sequence[int]], n_trunk: int) -> dict[int, npt.NDArray[np.float32]]:
        """The logits after each token of some continuations."""
        sequences = self._sequences
        places = dict(zip(batch, range(TRUNK + 1, sequences.n_seq), strict=False))
        for seq in places.values():
            sequences.copy(TRUNK, seq, n_trunk)
        rows: dict[int, list[npt.NDArray[np.float32]]] = {index: [] for index in batch}
        step = sequences.n_batch
        for start in range(0, max(map(len, batch.values())), step):
            part = {places[index]: rest[start : start + step] for index, rest in batch.items()}
            self._count(part)
            computed = sequences.score(part)
            for index in batch:
                rows[index].append(computed[places[index]])
        for seq in places.values():
            sequences.keep(seq, 0)
        return {index: np.concatenate(parts) for index, parts in rows.items()}

    def _count(self, tokens: dict[int, Sequence[int]]) -> None:
        self.n_computed += sum(map(len, tokens.values()))


def common_beginning(group: Sequence[Continuation]) -> int:
    """How many of the given tokens all have in common."""
    first = group[0].tokens[: group[0].n_before]
    return min(min(common_length(first, each.tokens), each.n_before) for each in group)


def likelihood(continuation: Continuation, rows: npt.NDArray[np.float32]) -> LogLikelihood:
    """The log-likelihood by the logits before each token; the last row is that before the last token."""
    targets = continuation.tokens[continuation.n_before :]
    if not targets:
        return LogLikelihood(0.0, True)
    rows = rows[-len(targets) :]
    scores = score_rows(rows, targets, 0)
    is_greedy = bool((rows.argmax(axis=1) == np.array(targets)).all())
    return LogLikelihood(sum(score.logprob for score in scores), is_greedy)
