"""A larger model as a teacher: its log-probabilities for the learnt tokens, computed by our engine.

    teacher = Teacher(weights, n_ctx=512, n_threads=2)
    taught = teacher.rows(rows, device)   # the likeliest tokens at each place, and what is left to all others
    distance(logits, taught)              # KL divergence from the teacher, summed, in nats

Only the likeliest tokens are kept; all others count as one. The divergence over these outcomes is exact, and at most
that over all tokens (the data processing inequality).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgellm.engine.base import Model
from edgellm.errors import UsageError
from edgellm.training.sequences import Row, TokenSequence

KEPT = 32
_BATCH = 256


@dataclass(frozen=True, slots=True)
class TeacherRow:
    """The teacher at n places: token ids [n, k], their log-probabilities [n, k], and that of all others [n]."""

    ids: Tensor
    log_probs: Tensor
    rest: Tensor

    def part(self, part: slice) -> TeacherRow:
        """Some of the places."""
        return TeacherRow(self.ids[part], self.log_probs[part], self.rest[part])


class Teacher:
    """A model in the engine that scores sequences; what it found is remembered."""

    def __init__(self, model: Model, *, n_ctx: int, n_threads: int) -> None:
        self._context = model.open_context(n_ctx=n_ctx, n_batch=_BATCH, n_threads=n_threads)
        self._known: dict[int, TeacherRow] = {}

    def rows(self, rows: Sequence[Row], device: torch.device) -> TeacherRow:
        """The places of all rows, in the order of a batch."""
        found = [self._of(each) for row in rows for each in row.sequences]
        ids, log_probs, rest = (
            torch.cat([getattr(each, name) for each in found]).to(device) for name in ("ids", "log_probs", "rest")
        )
        return TeacherRow(ids, log_probs, rest)

    def close(self) -> None:
        """Free the engine's memory."""
        self._context.close()

    def _of(self, sequence: TokenSequence) -> TeacherRow:
        key = id(sequence)
        if key not in self._known:
            self._known[key] = self._score(sequence)
        return self._known[key]

    def _score(self, sequence: TokenSequence) -> TeacherRow:
        self._context.keep(0)
        parts = []
        for first in range(0, len(sequence.tokens) - 1, _BATCH):
            tokens = sequence.tokens[first : min(first + _BATCH, len(sequence.tokens) - 1)]
            wanted = np.flatnonzero(sequence.learnt[first + 1 : first + 1 + len(tokens)])
            logits = self._context.score(tokens.tolist())[wanted]
            log_probs = torch.log_softmax(torch.from_numpy(logits), dim=-1)
            best = log_probs.topk(min(KEPT, log_probs.shape[-1] - 1))
            parts.append(TeacherRow(best.indices, best.values, _left(best.values)))
        return TeacherRow(
            *(torch.cat([getattr(part, name) for part in parts]) for name in ("ids", "log_probs", "rest"))
        )


def distance(logits: Tensor, teacher: TeacherRow) -> Tensor:
    """KL(teacher || model) over the kept tokens and the rest, summed over places [n, n_vocab], in nats."""
    log_probs = functional.log_softmax(logits, dim=-1).gather(-1, teacher.ids)
    mine = torch.cat([log_probs, _left(log_probs)[:, None]], dim=-1)
    theirs = torch.cat([teacher.log_probs, teacher.rest[:, None]], dim=-1)
    return functional.kl_div(mine, theirs, reduction="sum", log_target=True)


def require_same_vocabulary(student: Model, teacher: Model) -> None:
    """Raise `UsageError` unless both have the same tokens."""
    n, other = student.info.n_vocab, teacher.info.n_vocab
    different = (
        None if n != other else next((i for i in range(n) if student.token_text(i) != teacher.token_text(i)), None)
    )
    if n != other or different is not None:
        why = f"{n:,} tokens and {other:,}" if n != other else f"token {different} is another one"
        raise UsageError("the teacher has another vocabulary", why=why, hint="a teacher of the same family")


def _left(log_probs: Tensor) -> Tensor:
    """The log-probability of all tokens but these [n, k], at least that of float32's rounding."""
    return torch.log((1 - log_probs.exp().sum(-1)).clamp(min=1e-7))
