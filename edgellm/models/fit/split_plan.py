"""Plans which layers of a model are on which machine, from the memory of each.

    plan, split = split_plan(outline, memory.room(), [ask_facts(address)], n_ctx=4096, kv_type=None, n_threads=8)
    split.n_here, split.workers[0].n_layers

Every machine is filled to the same degree, in order: the first layers are here, the next ones on the first worker.
Embedding and head stay here. A worker needs what this machine would need for the same layers: it packs weights alike.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgellm.engine.rpc.hello import WorkerFacts
from edgellm.engine.rpc.split import Split, WorkerShare
from edgellm.errors import DoesNotFit, UnsupportedModel, UsageError
from edgellm.machine.memory import Room
from edgellm.models.fit.memory import MemoryNeed, RunPlan, describe, estimate, gigabytes
from edgellm.models.fit.outline import Outline
from edgellm.models.fit.verdict import Fit, MachineShare, check_cache, default_plan, judge

_LAYER = re.compile(r"blk\.(\d+)\.")
# To how fine a degree machines are filled, and how far with --force.
_STEPS, _FORCED = 40, 1000.0


def split_plan(
    outline: Outline,
    room: Room,
    workers: Sequence[WorkerFacts],
    *,
    n_ctx: int | None,
    kv_type: str | None,
    n_threads: int,
    n_slots: int = 1,
    max_memory: int | None = None,
    force: bool = False,
    n_here: int | None = None,
) -> tuple[RunPlan, Split]:
    """Return the plan to run a model on several machines, and what each holds; workers that get no layer are left out.

    `room` is that of this machine, which `max_memory` caps. `n_here` is the number of layers to have here, if somebody
    asks for it.

    Raises:
        ContextTooLarge, UsageError: as `verdict.default_plan`, or there are not so many layers.
        UnsupportedModel: the model has no cache, or the cache type does not fit its heads.
        DoesNotFit: there is not enough memory on all machines together, with the numbers.
    """
    if outline.pooled:
        raise UnsupportedModel(f"{outline.name} is not split over workers", why="it is no model that answers")
    if n_here is not None and n_here > len(outline.keys):
        raise UsageError(f"{outline.name} has {len(outline.keys)} layers", hint=f"--layers-here {len(outline.keys)}")
    here = room.available if max_memory is None else min(room.available, max_memory)
    together = Room(here + sum(worker.available for worker in workers))
    plan = default_plan(outline, together, n_ctx=n_ctx, kv_type=kv_type, n_threads=n_threads, n_slots=n_slots)
    check_cache(outline, plan.kv_type)
    needs = _Needs.of(outline, plan)
    limits = [here - needs.here, *(worker.available - needs.worker for worker in workers)]
    counts = needs.counts(limits, n_here=n_here, most=_FORCED if force else 1.0)
    if counts is None:
        raise _does_not_fit(outline, plan, needs, here, workers)
    return plan, _split(outline, plan, counts, workers, here)


def judge_split(outline: Outline, plan: RunPlan, split: Split) -> Fit:
    """Return the verdict for a model on several machines, which `split_plan` found to have room for it."""
    here = need_here(outline, plan, split.n_here)
    machines = [MachineShare("here", split.n_here, here.kv_cache, split.total, split.available)]
    for each in split.workers:
        machines.append(MachineShare(str(each.address), each.n_layers, each.kv_cache, each.total, each.available))
    together = Room(sum(each.available for each in machines))
    return replace(judge(outline, plan, together), machines=tuple(machines), fits=True)


@dataclass(frozen=True, slots=True)
class _Needs:
    """Bytes: of each layer with its cache, and of everything else here and on a worker."""

    layers: tuple[int, ...]
    here: int
    worker: int

    @classmethod
    def of(cls, outline: Outline, plan: RunPlan) -> _Needs:
        costs = []
        for number in range(len(outline.keys)):
            need = need_of(outline, plan, number, 1)
            costs.append(need.weights + need.kv_cache)
        return cls(tuple(costs), need_here(outline, plan, 0).total, need_of(outline, plan, 0, 0).total)

    @property
    def total(self) -> int:
        """All bytes, on this machine and one worker."""
        return sum(self.layers) + self.here + self.worker

    def counts(self, limits: Sequence[int], *, n_here: int | None, most: float) -> list[int] | None:
        """The layers of each machine, this one first, each filled to the same degree of its limit; None: too little."""
        if limits[0] < 0 and most <= 1:  # not even embedding and head
            return None
        low, high = 0.0, most
        best = self._filled(limits, high, n_here, ceiling=most)
        for _ in range(_STEPS if best else 0):
            middle = (low + high) / 2
            if found := self._filled(limits, middle, n_here, ceiling=most):
                best, high = found, middle
            else:
                low = middle
        return best

    def _filled(self, limits: Sequence[int], degree: float, n_here: int | None, *, ceiling: float) -> list[int] | None:
        counts, number = [], 0
        for machine, limit in enumerate(limits):
            first, fixed = number, n_here is not None and machine == 0
            left = limit * (ceiling if fixed else degree)  # a ceiling above 1 is that of --force
            most = len(self.layers) if n_here is None or not fixed else n_here
            while number < len(self.layers) and number - first < most:
                # Who is named gets one layer, if it has room for that.
                if self.layers[number] > (left if number > first else max(left, limit)):
                    break
                left -= self.layers[number]
                number += 1
            counts.append(number - first)
        short = n_here is not None and counts[0] < n_here
        return counts if number == len(self.layers) and not short else None


def need_of(outline: Outline, plan: RunPlan, first: int, count: int) -> MemoryNeed:
    """Return what a worker needs for `count` layers from `first` on."""
    part = _part(outline, range(first, first + count))
    return estimate(replace(part, n_words=0), replace(plan, n_outputs=0))


def need_here(outline: Outline, plan: RunPlan, n_layers: int) -> MemoryNeed:
    """Return what this machine needs for the first layers, embedding and head."""
    part = _part(outline, range(n_layers))
    others = tuple(info for info in outline.tensors if _LAYER.match(info.name) is None)
    return estimate(replace(part, tensors=part.tensors + others), plan)


def _part(outline: Outline, layers: range) -> Outline:
    found = [(info, _LAYER.match(info.name)) for info in outline.tensors]
    tensors = tuple(info for info, layer in found if layer and int(layer[1]) in layers)
    chosen = slice(layers.start, layers.stop)
    return replace(outline, tensors=tensors, keys=outline.keys[chosen], values=outline.values[chosen])


def _split(
    outline: Outline, plan: RunPlan, counts: Sequence[int], workers: Sequence[WorkerFacts], available: int
) -> Split:
    shares, first = [], counts[0]
    for worker, count in zip(workers, counts[1:], strict=True):
        need = need_of(outline, plan, first, count)
        share = WorkerShare(worker.address, count, need.weights, need.kv_cache, need.total, worker.available)
        shares += [share] if count else []
        first += count
    return Split(counts[0], tuple(shares), need_here(outline, plan, counts[0]).total, available)


def _does_not_fit(
    outline: Outline, plan: RunPlan, needs: _Needs, here: int, workers: Sequence[WorkerFacts]
) -> DoesNotFit:
    available = here + sum(worker.available for worker in workers)
    total = needs.total + needs.worker * (len(workers) - 1)
    machines = [f"{gigabytes(here)} here", *(f"{gigabytes(each.available)} on {each.address}" for each in workers)]
    what = f"{outline.name} does not fit on {len(machines)} machines at {describe(plan)}"
    why = (
        f"it needs {gigabytes(total)}, and there is {', '.join(machines)}; "
        f"{gigabytes(needs.here)} of it must be here, and a worker needs {gigabytes(needs.worker)} beside its layers"
    )
    hint = "one more worker, a smaller --ctx-size, or --force"
    return DoesNotFit(what, why=why, hint=hint, needed=total, available=available, n_ctx=plan.n_ctx)
