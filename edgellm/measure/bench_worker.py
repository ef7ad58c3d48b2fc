"""One contender of a benchmark, in a process of its own that `bench_runner` starts.

Each line of its input is a request, each line of its output an answer, both JSON objects:

    {"load": {"path": ..., "n_ctx": 640, "n_seqs": [8], "n_ctx_seq": 128, "n_batch": 512, "n_threads": 2}}
    {"progress": 40} ... {"seconds": 1.9, "token_seconds": 0.08}
    {"measure": {"kind": "decode", "n_tokens": 128, "n_seq": 1, "n_threads": 2, "depth": 0, "seed": 3}}
    {"seconds": 9.1, "cpu_seconds": 18.0, "joules": null, "ttft_seconds": null, "peak_resident_bytes": 1200000000}

or {"error": {"code", "what", "why", "try"}}. It ends with its input. Between requests it waits for a line and computes
nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from edgellm.engine.base import Context, Model, Sampling, Sequences
from edgellm.engine.installed import require
from edgellm.engine.llama import LlamaEngine
from edgellm.engine.patches import PatchStack
from edgellm.errors import EdgellmError
from edgellm.machine import memory
from edgellm.machine.energy import EnergyMeter
from edgellm.machine.process import cpu_seconds
from edgellm.progress import Progress
from edgellm.settings import Settings, resource_directory

Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a test took: time, CPU time of all threads, and energy where that can be read."""

    seconds: float
    cpu_seconds: float
    joules: float | None


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._energy = EnergyMeter()
        self._cpu_start, self._start = cpu_seconds(), time.perf_counter()

    def read(self) -> Cost:
        """What there was until now."""
        seconds, cpu = time.perf_counter() - self._start, cpu_seconds() - self._cpu_start
        return Cost(seconds, cpu, self._energy.joules())


class Worker:
    """A loaded model with a context, and one more for each number of sequences."""

    def __init__(
        self, path: str, *, n_ctx: int, n_seqs: list[int], n_ctx_seq: int, n_batch: int, n_threads: int
    ) -> None:
        self._path = Path(path)
        self._n_ctx, self._n_seqs, self._n_ctx_seq = n_ctx, n_seqs, n_ctx_seq
        self._n_batch, self._n_threads = n_batch, n_threads

    def load(self, say: Say) -> dict[str, Any]:
        """Load the model and compute one token, which brings in what is only mapped."""
        settings, stack = Settings.from_environment(), PatchStack.load(resource_directory("patches"))
        engine = LlamaEngine(require(settings, stack))
        start = time.perf_counter()
        self._model: Model = engine.load(self._path, report=lambda event: say({"progress": _percent(event)}))
        self._context: Context = self._model.open_context(
            n_ctx=self._n_ctx, n_batch=self._n_batch, n_threads=self._n_threads
        )
        self._context.decode([0])
        loaded = time.perf_counter()
        self._context.decode([0])
        token_seconds = time.perf_counter() - loaded
        self._sequences: dict[int, Sequences] = {
            n_seq: self._model.open_sequences(
                n_seq=n_seq, n_ctx=self._n_ctx_seq, n_batch=self._n_batch, n_threads=self._n_threads
            )
            for n_seq in self._n_seqs
        }
        return {"seconds": loaded - start, "token_seconds": token_seconds}

    def measure(self, *, kind: str, n_tokens: int, n_seq: int, n_threads: int, depth: int, seed: int) -> dict[str, Any]:
        """Run one test and tell its seconds; tokens are random, the same for every contender."""
        prefix, tokens = self._random(0, depth), self._random(seed, n_tokens)
        if kind == "prefill":
            cost, ttft = self._prefill(prefix, tokens, n_threads)
        elif n_seq == 1:
            cost, ttft = self._decode(prefix, tokens, n_threads), None
        else:
            cost, ttft = self._decode_together(self._sequences[n_seq], prefix, tokens, n_threads), None
        return {**asdict(cost), "ttft_seconds": ttft, "peak_resident_bytes": memory.peak_resident()}

    def _random(self, seed: int, count: int) -> list[int]:
        tokens: list[int] = np.random.default_rng(seed).integers(0, self._model.info.n_vocab, count).tolist()
        return tokens

    def _prefill(self, prefix: list[int], tokens: list[int], n_threads: int) -> tuple[Cost, float]:
        """The cost of reading the tokens after the prefix, and seconds until the next one is drawn."""
        context = self._context
        sampler = context.open_sampler(Sampling(temperature=0))
        context.set_threads(n_threads)
        self._return_to(prefix)
        stopwatch = Stopwatch()
        self._append(tokens)
        cost = stopwatch.read()
        sampler.sample()
        first = stopwatch.read().seconds
        sampler.close()
        return cost, first

    def _decode(self, prefix: list[int], tokens: list[int], n_threads: int) -> Cost:
        """The cost of computing the tokens after the prefix one by one."""
        context = self._context
        context.set_threads(n_threads)
        self._return_to(prefix)
        stopwatch = Stopwatch()
        for token in tokens:
            context.decode([token])
        return stopwatch.read()

    def _decode_together(self, sequences: Sequences, prefix: list[int], tokens: list[int], n_threads: int) -> Cost:
        """The same in all sequences at once; each step computes one token of each."""
        sequences.set_threads(n_threads)
        every = range(sequences.n_seq)
        for seq in every:
            if sequences.tokens[seq][: len(prefix)] != prefix or sequences.keep(seq, len(prefix)) < len(prefix):
                sequences.keep(seq, 0)
                for first in range(0, len(prefix), self._n_batch):
                    sequences.decode({seq: prefix[first : first + self._n_batch]})
        stopwatch = Stopwatch()
        for step in range(len(tokens)):
            # Different tokens in each, so that rows of the embedding differ too.
            sequences.decode({seq: [tokens[(step + seq) % len(tokens)]] for seq in every})
        return stopwatch.read()

    def _return_to(self, prefix: list[int]) -> None:
        """Leave just these tokens in the cache; they are computed only the first time."""
        context = self._context
        if context.tokens[: len(prefix)] != prefix or context.keep(len(prefix)) < len(prefix):
            context.keep(0)
            self._append(prefix)

    def _append(self, tokens: list[int]) -> None:
        for first in range(0, len(tokens), self._n_batch):
            self._context.decode(tokens[first : first + self._n_batch])


def _percent(event: Progress) -> int:
    return 100 * event.done // (event.total or 100)


def serve(requests: BinaryIO, say: Say) -> None:
    """Answer requests until there are no more."""
    worker: Worker | None = None
    for line in requests:
        request = json.loads(line)
        try:
            if "load" in request:
                worker = Worker(**request["load"])
                say(worker.load(say))
            elif worker is not None:
                say(worker.measure(**request["measure"]))
        except EdgellmError as error:
            say({"error": {"code": error.code, "what": error.what, "why": error.why, "try": error.hint}})


def main() -> None:
    """Answer on what is standard output now; whatever the engine itself prints goes to standard error."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()

    serve(sys.stdin.buffer, say)


if __name__ == "__main__":
    main()
