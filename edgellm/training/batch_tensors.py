"""Rows of token sequences as the tensors of one step.

batch = BatchTensors.of(rows, device)
hidden = model(batch.tokens, batch.positions, batch.mask)
loss, n = answer_loss(model, hidden, batch)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from edgellm.training.decoder import Decoder
from edgellm.training.sequences import Row
from edgellm.training.teacher import TeacherRow, distance

# Positions whose logits are in memory at once.
CHUNK = 128


@dataclass(frozen=True, slots=True)
class BatchTensors:
    """Tokens and positions [rows, tokens], and the mask [rows, tokens, tokens], true where a token sees another.

    `places` are the flat indexes [n] of the tokens before each learnt one, `targets` [n] the learnt tokens.
    """

    tokens: Tensor
    positions: Tensor
    mask: Tensor
    places: Tensor
    targets: Tensor

    @classmethod
    def of(cls, rows: Sequence[Row], device: torch.device) -> BatchTensors:
        """Lay out the rows; shorter ones are padded with tokens that see only themselves and teach nothing."""
        width = max(row.n_tokens for row in rows)
        shape = len(rows), width
        tokens, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        owner = np.zeros(shape, np.int64)
        places, targets = [], []
        for r, row in enumerate(rows):
            owner[r, row.n_tokens :] = -1 - np.arange(width - row.n_tokens)
            first = 0
            for number, each in enumerate(row.sequences):
                end = first + len(each.tokens)
                tokens[r, first:end], positions[r, first:end] = each.tokens, np.arange(end - first)
                owner[r, first:end] = number
                learnt = np.flatnonzero(each.learnt[1:])
                places.append(r * width + first + learnt)
                targets.append(each.tokens[learnt + 1])
                first = end
        same = owner[:, :, None] == owner[:, None, :]
        mask = same & np.tri(width, dtype=bool)
        found = (tokens, positions, mask, np.concatenate(places), np.concatenate(targets))
        return cls(*(torch.from_numpy(each).to(device) for each in found))


def n_learnt(rows: Sequence[Row]) -> int:
    """The tokens that rows teach."""
    return sum(int(each.learnt[1:].sum()) for row in rows for each in row.sequences)


def answer_loss(
    model: Decoder, batch: BatchTensors, teacher: TeacherRow | None = None, teacher_weight: float = 0.0
) -> Tensor:
    """The summed negative log-likelihood of the learnt tokens, in nats; a teacher adds the distance to it."""
    hidden = model(batch.tokens, batch.positions, batch.mask).flatten(0, 1)[batch.places]
    total: Tensor = hidden.new_zeros((), dtype=torch.float32)
    for first in range(0, len(hidden), CHUNK):
        part = slice(first, first + CHUNK)
        taught = None if teacher is None else teacher.part(part)
        arguments = (model, hidden[part], batch.targets[part], taught, teacher_weight)
        if model.training and len(hidden) > CHUNK:
            total += checkpoint(_chunk_loss, *arguments, use_reentrant=False)
        else:
            total += _chunk_loss(*arguments)
    return total


def _chunk_loss(
    model: Decoder, hidden: Tensor, targets: Tensor, taught: TeacherRow | None, teacher_weight: float
) -> Tensor:
    logits = model.logits(hidden)
    own = functional.cross_entropy(logits, targets, reduction="sum")
    if taught is None:
        return own
    return (1 - teacher_weight) * own + teacher_weight * distance(logits, taught)
