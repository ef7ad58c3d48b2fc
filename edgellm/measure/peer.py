"""Another engine in the same rounds: its own llama-bench, run once for each measurement.

    PeerRunner(contender, peer, plan, patience).measure(Test("prefill", 512, 1, 2), seed=0).rate

llama-bench is part of llama.cpp and of its forks (ik_llama.cpp, bitnet.cpp). Its JSON has gained keys over the years;
what is needed is in all versions: the numbers of tokens of a test and its rate.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgellm.errors import EngineError, UsageError
from edgellm.measure.bench_plan import Contender, Peer, Plan
from edgellm.measure.bench_result import Reading, Test
from edgellm.measure.child import Child, Patience

# A peer's speed is not known before it has run: a second a token for reading and writing is slower than any that one
# would compare with, and an order more than one should wait.
SECONDS_PER_TOKEN = 1.0
PATIENCE_SECONDS = 180.0


def check_peer(program: Path) -> None:
    """Raise UsageError unless the program is there and may be run."""
    if not program.is_file():
        raise UsageError(f"there is no program {program}", hint="--peer PATH/TO/llama-bench", path=str(program))
    if not os.access(program, os.X_OK):
        raise UsageError(f"{program} cannot be run", why="it is not executable", path=str(program))


class PeerRunner:
    """One contender that a llama-bench runs. It loads its model for each measurement and warms up by itself."""

    load_seconds: float | None = None

    def __init__(
        self, contender: Contender, peer: Peer, plan: Plan, patience: Patience, *, limit: float | None = None
    ) -> None:
        """`limit` are the seconds that every run may take; without it that depends on the test."""
        self._contender, self._peer, self._plan, self._patience = contender, peer, plan, patience
        self._limit = limit
        self.peak_resident_bytes: int | None = None

    def start(self) -> None:
        """Nothing: it starts anew for each measurement."""

    def measure(self, test: Test, *, seed: int) -> Reading | None:
        """Run a test once; it draws its tokens itself. None for several sequences, which llama-bench does not know.

        Raises:
            EngineError: the program fails, hangs, or prints what is not understood.
        """
        if test.n_seq > 1:
            return None
        limit = PATIENCE_SECONDS + SECONDS_PER_TOKEN * (test.n_tokens + self._plan.depth)
        command = [str(self._peer.program.absolute()), "-m", str(self._contender.path.absolute())]
        command += [*_arguments(test, self._plan.depth), *self._peer.arguments]
        name = f"the peer {self._contender.name}"
        with Child(command, name=name, env=os.environ, patience=self._patience) as child:
            output = child.everything(limit if self._limit is None else self._limit)
            peak = child.peak_resident
        self.peak_resident_bytes = max(peak or 0, self.peak_resident_bytes or 0) or None
        return Reading(parse_rate(output, test, name=name))

    def close(self) -> None:
        """Nothing is left."""


def _arguments(test: Test, depth: int) -> list[str]:
    n_prompt, n_gen = (test.n_tokens, 0) if test.kind == "prefill" else (0, test.n_tokens)
    numbers = {"-p": n_prompt, "-n": n_gen, "-t": test.n_threads, "-r": 1}
    if depth:  # forks of before 2025 do not know it
        numbers["-d"] = depth
    return [*(word for name, number in numbers.items() for word in (name, str(number))), "-o", "json"]


def parse_rate(output: bytes, test: Test, *, name: str) -> float:
    """Tokens per second of a test, from what llama-bench printed; EngineError when that is not there."""
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
    raise EngineError(f"{name} is not understood", why=why, hint="the program llama-bench of that engine")


def _records(text: str) -> Iterator[dict[str, Any]]:
    """The objects of a JSON array, or of lines (-o jsonl), whatever is printed around them."""
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
    """A number, or one that an older version wrote as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
