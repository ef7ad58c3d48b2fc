"""A contender that our engine runs, seen from the benchmark: a worker process, its model loaded once.

runner = EngineRunner(contender, plan, WaitHooks())
runner.start()
runner.measure(test, seed=0).rate
runner.close()
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict
from typing import Any, Protocol

from edgellm.machine.child import Child, ChildFailed, WaitHooks, module
from edgellm.measure.bench.plan import BenchPlan, Contender, ContextForm
from edgellm.measure.bench.result import Reading, Test

KERNELS_VARIABLE = "EDGELLM_KERNELS"
# The slowest disk that is still believed to work, and the time that a computation may take beyond ten times what the
# first token, the slowest way to compute one, lets expect.
SLOWEST_DISK = 5e6
PATIENCE_SECONDS = 60.0
PATIENCE_FACTOR = 10


class Runner(Protocol):
    """What the benchmark does with a contender."""

    @property
    def load_seconds(self) -> float | None:
        """How long `start` took to load the model, where that is known."""

    @property
    def peak_resident_bytes(self) -> int | None:
        """The most memory its process had."""

    def start(self) -> None:
        """Get ready to measure."""

    def measure(self, test: Test, *, seed: int) -> Reading | None:
        """Run a test once; None: this contender has no such test."""

    def close(self) -> None:
        """End it."""


class EngineRunner:
    """A worker process with one model on our engine, at one level of kernels."""

    def __init__(self, contender: Contender, plan: BenchPlan, hooks: WaitHooks, *, limit: float | None = None) -> None:
        """`limit` are the seconds that every answer may take; without it that depends on the model's speed."""
        self._contender, self._plan, self._limit = contender, plan, limit
        self._token_seconds = 0.0
        self.load_seconds: float | None = None
        self.peak_resident_bytes: int | None = None
        self._hooks = hooks
        self._child: Child | None = None

    def start(self) -> None:
        """Start the process and load the model.

        Raises:
            EdgellmError: the engine refuses the model; ChildFailed: the process fails.
        """
        environment = {name: value for name, value in os.environ.items() if name != KERNELS_VARIABLE}
        if self._contender.kernels:
            environment[KERNELS_VARIABLE] = self._contender.kernels
        self._child = child = Child(
            module("edgellm.measure.bench.worker", env=environment),
            name=f"the worker of {self._contender.name}",
            hooks=self._hooks,
        )
        plan, path = self._plan, self._contender.path
        limit = PATIENCE_SECONDS + path.stat().st_size / SLOWEST_DISK
        request = {
            "path": str(path.absolute()),
            "n_ctx": plan.n_ctx,
            "n_seqs": [n_seq for n_seq in plan.n_seqs if n_seq > 1],
            "n_ctx_seq": plan.n_ctx_seq,
            "n_batch": plan.n_batch,
            "n_threads": max(plan.n_threads),
            "flash_attention": self._contender.form.flash_attention,
            "workers": ",".join(map(str, self._contender.workers)),
            "n_here": self._contender.n_here,
        }
        answer = self._ask(child, {"load": request}, limit)
        self.load_seconds = _seconds(answer, "seconds", child)
        self._token_seconds = _seconds(answer, "token_seconds", child)

    def measure(self, test: Test, *, seed: int, form: ContextForm | None = None, depth: int | None = None) -> Reading:
        """Run a test once, in another form of context or after another number of tokens if they are given.

        Raises:
            EngineError: the worker died or hangs, or the engine failed.
        """
        child = self._child
        if child is None:
            raise ValueError("a runner is started before it measures")
        depth, form = self._plan.depth if depth is None else depth, form or self._contender.form
        total = (test.n_tokens + depth) * test.n_seq
        slower = max(self._plan.n_threads) / test.n_threads
        limit = PATIENCE_SECONDS + PATIENCE_FACTOR * slower * total * self._token_seconds
        request = {
            "kind": test.kind,
            "n_tokens": test.n_tokens,
            "n_seq": test.n_seq,
            "n_threads": test.n_threads,
            "depth": depth,
            "seed": seed,
            "form": asdict(form),
        }
        answer = self._ask(child, {"measure": request}, limit)
        seconds = _seconds(answer, "seconds", child)
        ttft = _seconds(answer, "ttft_seconds", child) if test.kind == "prefill" else None
        self.peak_resident_bytes = int(answer.get("peak_resident_bytes", 0)) or None
        n_tokens = test.n_tokens * test.n_seq
        cores = _seconds(answer, "cpu_seconds", child) / seconds
        joules = answer.get("joules")  # none, too, if the counters did not move within so short a test
        return Reading(n_tokens / seconds, ttft, cores, joules / n_tokens if joules else None)

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _ask(self, child: Child, request: dict[str, Any], limit: float) -> dict[str, Any]:
        child.send(request)
        while "progress" in (answer := child.receive(limit if self._limit is None else self._limit)):
            pass
        return answer


def _seconds(answer: dict[str, Any], name: str, child: Child) -> float:
    value = answer.get(name)
    if not isinstance(value, float) or not 0 < value < math.inf:
        raise ChildFailed(f"{child.name} gave no sensible answer", why=f"its {name} are {value!r:.40}")
    return value
