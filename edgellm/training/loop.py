"""The training loop: steps over rows, the held-out loss, checkpoints.

    loop = TrainingLoop(model, trained, rows, held_out, plan, device=device)
    for step in loop.run(start=0):
        step.loss, step.held_out

Which rows a step takes, and its learning rate, follow from the seed and its number alone: a run that was interrupted
and goes on computes the same weights as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edgellm.errors import NotFinite
from edgellm.training.batch_tensors import BatchTensors, answer_loss, n_learnt
from edgellm.training.decoder import Decoder
from edgellm.training.method import optimizer_groups
from edgellm.training.sequences import Row
from edgellm.training.teacher import Teacher

WARMUP_SHARE = 0.03
LEAST_RATE = 0.1
_BETAS = (0.9, 0.95)
_CLIP = 1.0


@dataclass(frozen=True, slots=True)
class LoopPlan:
    """How to train: `batch` rows of packed tokens a step, computed `micro` rows at once.

    The learning `rate` rises over the first 3 % of `n_steps` and falls to a tenth as a cosine. The held-out loss is
    measured every `evaluate_every` steps.
    """

    n_steps: int
    batch: int
    micro: int
    rate: float
    weight_decay: float = 0.0
    seed: int = 0
    evaluate_every: int = 50
    bf16: bool = False
    teacher_weight: float = 0.5

    def rate_factor(self, step: int) -> float:
        """The share of the learning rate in step `step`, from 0."""
        warmup = max(1, round(WARMUP_SHARE * self.n_steps))
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, self.n_steps - warmup)
        return LEAST_RATE + (1 - LEAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """A step that is done, numbered from 1. `loss` and `held_out` are nats a learnt token; `tokens` those computed."""

    step: int
    loss: float
    held_out: float | None
    rate: float
    tokens: int
    seconds: float


class TrainingLoop:
    """One run; `optimizer` has its state."""

    def __init__(
        self,
        model: Decoder,
        trained: Mapping[str, nn.Parameter],
        rows: Sequence[Row],
        held_out: Sequence[Row],
        plan: LoopPlan,
        *,
        device: torch.device,
        teacher: Teacher | None = None,
    ) -> None:
        self.model, self.plan, self.device = model, plan, device
        self._trained = dict(trained)
        self._rows, self._held_out = rows, held_out
        self._teacher = teacher
        self.optimizer = torch.optim.AdamW(
            optimizer_groups(model, self._trained, plan.rate), betas=_BETAS, weight_decay=plan.weight_decay
        )

    def run(self, start: int = 0, interrupted: Callable[[], bool] = lambda: False) -> Iterator[TrainingStep]:
        """Do the steps from `start` on; an interrupt ends it between two steps.

        Raises:
            NotFinite: the loss is NaN or infinite; the learning rate is too large.
        """
        for step in range(start, self.plan.n_steps):
            if interrupted():
                return
            began = time.perf_counter()
            rows = self._rows_of(step)
            loss = self._update(step, rows)
            last = step + 1 == self.plan.n_steps
            measured = self._held_out and ((step + 1) % self.plan.evaluate_every == 0 or last)
            yield TrainingStep(
                step + 1, loss, self.held_out_loss() if measured else None,
                self.plan.rate * self.plan.rate_factor(step), sum(row.n_tokens for row in rows),
                time.perf_counter() - began,
            )  # fmt: skip

    def held_out_loss(self) -> float | None:
        """The loss on what is not trained on, in nats a token; None if nothing is held out."""
        return self.loss_of(self._held_out) if self._held_out else None

    def loss_of(self, rows: Sequence[Row]) -> float:
        """The mean negative log-likelihood of the learnt tokens of rows."""
        self.model.eval()
        total = 0.0
        with torch.no_grad():
            for first in range(0, len(rows), self.plan.micro):
                batch = BatchTensors.of(rows[first : first + self.plan.micro], self.device)
                total += float(answer_loss(self.model, batch))
        return total / max(1, n_learnt(rows))

    def _rows_of(self, step: int) -> list[Row]:
        """The rows of a step: every epoch has an order of its own."""
        places = np.arange(step * self.plan.batch, (step + 1) * self.plan.batch)
        n = len(self._rows)
        orders = {epoch: _order(self.plan.seed, int(epoch), n) for epoch in np.unique(places // n)}
        return [self._rows[int(orders[place // n][place % n])] for place in places]

    def _update(self, step: int, rows: Sequence[Row]) -> float:
        self.model.train()
        n = max(1, n_learnt(rows))
        total = 0.0
        for first in range(0, len(rows), self.plan.micro):
            part = rows[first : first + self.plan.micro]
            batch = BatchTensors.of(part, self.device)
            taught = self._teacher.rows(part, self.device) if self._teacher else None
            with self._precision():
                loss = answer_loss(self.model, batch, taught, self.plan.teacher_weight) / n
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        if not math.isfinite(total):
            why = "the learning rate is too large, or a weight overflowed"
            raise NotFinite(f"the loss of step {step + 1} is {total}", why=why, hint="a smaller --rate")
        nn.utils.clip_grad_norm_(list(self._trained.values()), _CLIP)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * self.plan.rate_factor(step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.plan.bf16 else nullcontext()


def _order(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(n)
