"""How a model runs fastest on this machine, as `edgellm tune` found it, and plans that use it.

tuning = Tuning(n_threads=4, n_threads_batch=8, n_batch=512)
tuned_plan(plan, tuning, outline, room).n_threads
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgellm.formats.quant_types import named_type
from edgellm.machine.cpu import usable_cores
from edgellm.machine.memory import Room
from edgellm.models.fit.memory import N_BATCH, RunPlan, estimate
from edgellm.models.fit.outline import Outline
from edgellm.units import threads


@dataclass(frozen=True, slots=True)
class Tuning:
    """Threads for single tokens, threads and tokens per computation for prompts, and whether attention is flash
    attention; None leaves that to the engine, which uses it where it can."""

    n_threads: int
    n_threads_batch: int
    n_batch: int = N_BATCH
    flash_attention: bool | None = None

    def __str__(self) -> str:
        prompts = f", {self.n_threads_batch} for prompts" if self.n_threads_batch != self.n_threads else ""
        attention = (
            "" if self.flash_attention is None else f", flash attention {'on' if self.flash_attention else 'off'}"
        )
        return f"{threads(self.n_threads)}{prompts}, batches of {self.n_batch}{attention}"

    def with_threads(self, n_threads: int | None) -> Tuning:
        """The same with the threads that somebody asked for; None changes nothing."""
        return self if n_threads is None else replace(self, n_threads=n_threads, n_threads_batch=n_threads)


def default_tuning() -> Tuning:
    """What a model runs with that was not tuned."""
    return Tuning(usable_cores(), usable_cores())


def tuned_plan(plan: RunPlan, tuning: Tuning | None, outline: Outline, room: Room) -> RunPlan:
    """The plan with what is fastest, as far as there is memory for it; context, slots and cache stay as they are."""
    if tuning is None:
        return plan
    plan = replace(plan, n_threads=tuning.n_threads, n_threads_batch=tuning.n_threads_batch)
    # Without flash attention the engine cannot use a quantized cache.
    attention = plan.flash_attention if named_type(plan.kv_type).is_quantized else tuning.flash_attention
    fast = replace(plan, n_batch=tuning.n_batch, flash_attention=attention)
    return fast if estimate(outline, fast).fits(room) else plan
