"""How to fine-tune: what a user may choose, and the defaults. Needs no torch.

FineTuneOptions(method=Method.LORA, epochs=3, length=512)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from edgellm.errors import UsageError


class Method(str, Enum):
    """What is trained.

    TERNARY: everything, ternary weights by their latent weights. SCALES: scales, norms and the output head. LORA: a
    product of low rank beside each linear layer. FULL: all ordinary weights.
    """

    TERNARY = "ternary"
    SCALES = "scales"
    LORA = "lora"
    FULL = "full"


# Learning rates that are neither slow nor risky for small models.
DEFAULT_RATES = {Method.TERNARY: 5e-4, Method.SCALES: 1e-3, Method.LORA: 5e-4, Method.FULL: 1e-4}


@dataclass(frozen=True, slots=True)
class FineTuneOptions:
    """The choices of a run; None leaves one to edgellm.

    `length` is the tokens of a row, into which examples are packed; `batch` the rows of a step. `steps` takes the place
    of `epochs`. `rank` and `alpha` are those of LORA. `held_out` is the share that is not trained on. `save_every` and
    `evaluate_every` count steps. `teacher_weight` is the teacher's part of the loss. `force` trains even if memory
    seems too small.
    """

    method: Method | None = None
    epochs: int = 3
    steps: int | None = None
    length: int | None = None
    batch: int = 8
    rate: float | None = None
    weight_decay: float = 0.0
    rank: int = 16
    alpha: float | None = None
    held_out: float = 0.05
    seed: int = 0
    save_every: int = 50
    evaluate_every: int = 50
    n_threads: int | None = None
    teacher: Path | None = None
    teacher_weight: float = 0.5
    outtype: str | None = None
    head: str | None = None
    resume: bool = False
    force: bool = False

    def check(self) -> None:
        """Raise `UsageError` for values that make no sense."""
        positive = {
            "--epochs": self.epochs, "--steps": self.steps, "--batch": self.batch, "--rate": self.rate,
            "--rank": self.rank, "--alpha": self.alpha, "--save-every": self.save_every,
            "--eval-every": self.evaluate_every,
        }  # fmt: skip
        for flag, value in positive.items():
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{flag} is {value}", why="it must be positive")
        for flag, value, most in (("--held-out", self.held_out, 0.9), ("--teacher-weight", self.teacher_weight, 1.0)):
            if not 0 <= value <= most:
                raise UsageError(f"{flag} is {value}", why=f"it must lie between 0 and {most:g}")

    @property
    def scale_alpha(self) -> float:
        """The alpha of LORA: by default twice the rank, so the product counts twice."""
        return 2.0 * self.rank if self.alpha is None else self.alpha


@dataclass(frozen=True, slots=True)
class FineTuneRequest:
    """What to train on what: `model` is a GGUF file or a checkpoint directory, `output` the GGUF file to write."""

    model: Path
    data: Path
    output: Path
    options: FineTuneOptions
