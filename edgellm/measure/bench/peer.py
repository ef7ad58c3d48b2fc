"""Measures another engine in the same rounds, by running its llama-bench once for each measurement.

    PeerRunner(contender, peer, plan, WaitHooks()).measure(Test("prefill", 512, 1, 2), seed=0).rate

llama-bench is part of llama.cpp and of its forks (ik_llama.cpp, bitnet.cpp). Its JSON has gained keys over the years,
but all versions have the ones used here: the numbers of tokens of a test, and its rate.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgellm.errors import EngineError, UsageError
from edgellm.machine.child import Child, Program, WaitHooks
from edgellm.measure.bench.plan import BenchPlan, Contender, Peer
from edgellm.measure.bench.result import Reading, Test

# A peer's speed is unknown before its first run. One second per token is slower than any engine worth comparing
# with, and ten times longer than anybody should wait.
SECONDS_PER_TOKEN = 1.0
PATIENCE_SECONDS = 180.0


def check_peer(program: Path) -> None:
    """Raise UsageError unless the program exists and is executable."""
    if not program.is_file():
        raise UsageError(f"there is no program {program}", hint="--peer PATH/TO/llama-bench", path=str(program))
    if not os.access(program, os.X_OK):
        raise UsageError(f"{program} cannot be run", why="it is not executable", path=str(program))


class PeerRunner:
    """Runs one contender with llama-bench, which loads the model and warms up for each measurement."""

    load_seconds: float | None = None

    def __init__(
        self, contender: Contender, peer: Peer, plan: BenchPlan, hooks: WaitHooks, *, limit: float | None = None
    ) -> None:
        """`limit` are the seconds that every run may take; without it that depends on the test."""
        self._contender, self._peer, self._plan, self._hooks = contender, peer, plan, hooks
        self._limit = limit
        self.peak_resident_bytes: int | None = None

    def start(self) -> None:
        """Do nothing: llama-bench starts anew for each measurement."""

    def measure(self, test: Test, *, seed: int) -> Reading | None:
        """Run a test once, with llama-bench's own tokens. Return None for several sequences, which it cannot run.

        Raises:
            EngineError: the program fails, hangs, or prints something unexpected.
        """
        if test.n_seq > 1:
            return None
        limit = PATIENCE_SECONDS + SECONDS_PER_TOKEN * (test.n_tokens + self._plan.depth)
        command = [str(self._peer.program.absolute()), "-m", str(self._contender.path.absolute())]
        command += [*_arguments(test, self._plan.depth), *self._peer.arguments]
        name = f"the peer {self._contender.name}"
        with Child(Program(command), name=name, hooks=self._hooks) as child:
            output = child.everything(limit if self._limit is None else self._limit)
            peak = child.peak_resident
        self.peak_resident_bytes = max(peak or 0, self.peak_resident_bytes or 0) or None
        return Reading(parse_rate(output, test, name=name))

    def close(self) -> None:
        """Do nothing: no process is left between measurements."""


def _arguments(test: Test, depth: int) -> list[str]:
    n_prompt, n_gen = (test.n_tokens, 0) if test.kind == "prefill" else (0, test.n_tokens)
    numbers = {"-p": n_prompt, "-n": n_gen, "-t": test.n_threads, "-r": 1}
    if depth:  # forks from before 2025 lack this option
        numbers["-d"] = depth
    return [*(word for name, number in numbers.items() for word in (name, str(number))), "-o", "json"]


def parse_rate(output: bytes, test: Test, *, name: str) -> float:
    """Return a test's tokens per second from llama-bench's output; EngineError when they are missing."""
    n_tokens = float(test.n_tokens)
    wanted: tuple[float | None, float | None] = (n_tokens, 0.0) if test.kind == "prefill" else (0.0, n_tokens)
    for record in _records(output.decode(errors="replace")):
        if (_number(record.get("n_prompt")), _number(record.get("n_gen"))) != wanted:
            continue
        rate = _number(record.get("avg_ts"))
        if rate is not None and 0 < rate < math.inf:
            return rate
    shown = output[:120].decode(errors="replace").strip() or "nothing"
    why = f"-o json gave no record of {test} with a rate, but: {shown}"
    raise EngineError(f"the output of {name} is not understood", why=why, hint="use that engine's llama-bench")


def _records(text: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON array or of JSON lines (-o jsonl), ignoring any output around them."""
    begin, end = text.find("[\n"), text.rfind("]")
    candidates = [text, text[begin : end + 1] if 0 <= begin < end else "", *text.splitlines()]
    for candidate in candidates:
        try:
            found = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        for record in found if isinstance(found, list) else [found]:
            if isinstance(record, dict):
                yield record


def _number(value: object) -> float | None:
    """Return a number, which older versions write as text, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
