"""A contender that our engine runs, seen from the benchmark: a worker process, its model loaded once.

runner = EngineRunner(contender, plan, patience)
runner.start()
runner.measure(test, seed=0).rate
runner.close()
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any, Protocol

import edgellm
from edgellm import errors
from edgellm.errors import EdgellmError, EngineError
from edgellm.measure.bench_plan import Contender, Plan
from edgellm.measure.bench_result import Reading, Test
from edgellm.measure.child import Child, Patience

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

    def __init__(self, contender: Contender, plan: Plan, patience: Patience, *, limit: float | None = None) -> None:
        """`limit` are the seconds that every answer may take; without it that depends on the model's speed."""
        self._contender, self._plan, self._limit = contender, plan, limit
        self._token_seconds = 0.0
        self.load_seconds: float | None = None
        self.peak_resident_bytes: int | None = None
        self._patience = patience
        self._child: Child | None = None

    def start(self) -> None:
        """Start the process and load the model.

        Raises:
            EdgellmError: what the engine says of the model, of whatever kind; EngineError if the process fails.
        """
        environment = {name: value for name, value in os.environ.items() if name != KERNELS_VARIABLE}
        if self._contender.kernels:
            environment[KERNELS_VARIABLE] = self._contender.kernels
        self._child = child = Child(
            [sys.executable, "-m", "edgellm.measure.bench_worker"],
            name=f"the worker of {self._contender.name}",
            env=environment,
            patience=self._patience,
            # `-m` puts the working directory first in the module path: this one holds nothing but packages.
            cwd=Path(edgellm.__file__).parent.parent,
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
        }
        answer = self._ask(child, {"load": request}, limit)
        self.load_seconds = _seconds(answer, "seconds", child)
        self._token_seconds = _seconds(answer, "token_seconds", child)

    def measure(self, test: Test, *, seed: int) -> Reading:
        """Run a test once.

        Raises:
            EngineError: the worker died, hangs, or the engine failed.
        """
        child = self._child
        if child is None:
            raise ValueError("a runner is started before it measures")
        total = (test.n_tokens + self._plan.depth) * test.n_seq
        slower = max(self._plan.n_threads) / test.n_threads
        limit = PATIENCE_SECONDS + PATIENCE_FACTOR * slower * total * self._token_seconds
        request = {
            "kind": test.kind,
            "n_tokens": test.n_tokens,
            "n_seq": test.n_seq,
            "n_threads": test.n_threads,
            "depth": self._plan.depth,
            "seed": seed,
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
        child.send(json.dumps(request).encode() + b"\n")
        while True:
            answer = _parse(child.line(limit if self._limit is None else self._limit), child)
            if "error" in answer:
                raise _as_raised(answer["error"])
            if "progress" not in answer:
                return answer


def _parse(line: bytes, child: Child) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise EngineError(f"{child.name} gave no sensible answer", why=repr(line[:100]))
    return answer


def _seconds(answer: dict[str, Any], name: str, child: Child) -> float:
    value = answer.get(name)
    if not isinstance(value, float) or not 0 < value < math.inf:
        raise EngineError(f"{child.name} gave no sensible answer", why=f"its {name} are {value!r:.40}")
    return value


def _as_raised(error: dict[str, str]) -> EdgellmError:
    """The error that the worker met, of the class it had there."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EdgellmError)]
    kind = next((kind for kind in kinds if kind.code == error["code"]), EngineError)
    return kind(error["what"], why=error["why"], hint=error["try"])
