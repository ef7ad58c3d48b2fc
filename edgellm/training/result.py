"""What came out of a fine-tuning. Needs no torch.

result.path, result.held_out_before, result.held_out_after
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgellm.training.options import Method


@dataclass(frozen=True, slots=True)
class FineTuned:
    """A finished run, or one that was interrupted and can be resumed (`path` is then null).

    Losses are nats a learnt token: of each step, and on what was held out, before and after. `seconds` are those of
    this process. `is_adapter`: the file is an adapter for the base.
    """

    path: Path | None
    base: Path
    method: Method
    is_adapter: bool
    steps: int
    n_steps: int
    tokens: int
    seconds: float
    losses: list[float]
    held_out_before: float | None
    held_out_after: float | None
    peak_bytes: int
    metrics: Path
    work: Path
    notes: list[str]

    @property
    def interrupted(self) -> bool:
        """Whether steps are left."""
        return self.path is None
