"""Log-probabilities of given tokens, from the logits before them.

score_rows(context.score(tokens)[:-1], tokens[1:], n_top=0)[0].logprob
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.engine.finite import require_finite

# Stands for the logarithm of zero, which JSON cannot write; OpenAI's servers use the same number.
NEVER = -9999.0


@dataclass(frozen=True, slots=True)
class Score:
    """A token's natural log-probability, and the likeliest tokens with theirs, best first."""

    logprob: float
    top: tuple[tuple[int, float], ...]


def score_rows(rows: npt.NDArray[np.float32], targets: Sequence[int], n_top: int) -> list[Score]:
    """The scores of `tokens`, each by the row of logits before it; further rows are ignored.

    Raises:
        NotFinite: the logits are not numbers.
    """
    rows = rows[: len(targets)]
    if not len(rows):
        return []
    require_finite(rows)
    best = rows.max(axis=1)
    totals = best + np.log(np.exp(rows - best[:, np.newaxis]).sum(axis=1, dtype=np.float64))
    n_top = min(n_top, rows.shape[1])
    tops = np.argpartition(rows, -n_top, axis=1)[:, -n_top:] if n_top > 0 else np.empty((len(rows), 0), np.int64)

    def logprob(row: int, token: int) -> float:
        value = float(rows[row, token]) - float(totals[row])
        return value if math.isfinite(value) else NEVER

    scores = []
    for row, target in enumerate(targets):
        likeliest = sorted(((int(token), logprob(row, int(token))) for token in tops[row]), key=lambda pair: -pair[1])
        scores.append(Score(logprob(row, target), tuple(likeliest)))
    return scores
