"""One contender of a benchmark, in a process of its own that `bench.runner` starts.

Each line of its input is a request, each line of its output an answer, both JSON objects:

    {"load": {"path": ..., "n_ctx": 640, "n_seqs": [8], "n_ctx_seq": 128, "n_batch": 512, "n_threads": 2,
              "flash_attention": null}}
    {"progress": 40} ... {"seconds": 1.9, "token_seconds": 0.08}
    {"measure": {"kind": "decode", "n_tokens": 128, "n_seq": 1, "n_threads": 2, "depth": 0, "seed": 3,
                 "form": {"flash_attention": null, "kv_type": "F16", "n_batch": null}}}
    {"seconds": 9.1, "cpu_seconds": 18.0, "joules": null, "ttft_seconds": null, "peak_resident_bytes": 1200000000}

or {"error": {"code", "message", "why", "try", "facts"}}. It ends with its input. Between requests it only waits for the
next line, so that it costs the other contenders no time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.engine.base import Context, Model, Sequences
from edgellm.engine.builds.installed import require
from edgellm.engine.builds.patches import PatchStack
from edgellm.engine.llama import LlamaEngine
from edgellm.engine.rpc.address import parse_addresses
from edgellm.engine.rpc.split import Split
from edgellm.engine.sampling import Sampling
from edgellm.errors import EdgellmError
from edgellm.machine import memory
from edgellm.machine.child import describe, open_answers, requests
from edgellm.machine.energy import EnergyMeter
from edgellm.machine.process import cpu_seconds
from edgellm.measure.bench.plan import ContextForm
from edgellm.progress import Progress
from edgellm.settings import Settings, resource_directory

Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a test took: wall time, CPU time of all threads, and energy where that can be read."""

    seconds: float
    cpu_seconds: float
    joules: float | None


class Stopwatch:
    """Measures cost from its construction on."""

    def __init__(self) -> None:
        self._energy = EnergyMeter()
        self._cpu_start, self._start = cpu_seconds(), time.perf_counter()

    def read(self) -> Cost:
        """The cost so far."""
        seconds, cpu = time.perf_counter() - self._start, cpu_seconds() - self._cpu_start
        return Cost(seconds, cpu, self._energy.joules())


class BenchWorker:
    """A loaded model with a context, one more for each number of sequences, and those that measurements ask for."""

    def __init__(
        self,
        path: str,
        *,
        n_ctx: int,
        n_seqs: list[int],
        n_ctx_seq: int,
        n_batch: int,
        n_threads: int,
        flash_attention: bool | None = None,
        workers: str = "",
        n_here: int | None = None,
    ) -> None:
        self._path = Path(path)
        self._workers, self._n_here = workers, n_here
        self._n_ctx, self._n_seqs, self._n_ctx_seq = n_ctx, n_seqs, n_ctx_seq
        self._n_batch, self._n_threads, self._flash_attention = n_batch, n_threads, flash_attention

    def load(self, say: Say) -> dict[str, Any]:
        """Load the model and compute one token, which brings in what is only mapped."""
        settings, stack = Settings.from_environment(), PatchStack.load(resource_directory("patches"))
        engine = LlamaEngine(require(settings, stack))
        start = time.perf_counter()
        split = self._split() if self._workers else None
        self._model: Model = engine.load(
            self._path, report=lambda event: say({"progress": _percent(event)}), split=split
        )
        self._contexts: dict[tuple[bool | None, str], Context] = {}
        self._use(ContextForm(self._flash_attention))
        self._context.decode([0])
        _ = self._context.logits()  # no speed is worth having where nothing is computed
        loaded = time.perf_counter()
        self._context.decode([0])
        token_seconds = time.perf_counter() - loaded
        self._sequences: dict[int, Sequences] = {
            n_seq: self._model.open_sequences(
                n_seq=n_seq,
                n_ctx=self._n_ctx_seq,
                n_batch=self._n_batch,
                n_threads=self._n_threads,
                flash_attention=self._flash_attention,
            )
            for n_seq in self._n_seqs
        }
        return {"seconds": loaded - start, "token_seconds": token_seconds}

    def _split(self) -> Split | None:
        """Which layers go to which worker, with room for the largest of the contexts."""
        from edgellm.engine.rpc.hello import require_all
        from edgellm.models.fit.split_plan import split_plan
        from edgellm.models.fit.verdict import read_outline

        n_seq = max(self._n_seqs, default=1)
        n_ctx = max(self._n_ctx, self._n_ctx_seq) if n_seq > 1 else self._n_ctx
        _, split = split_plan(
            read_outline(self._path), memory.room(), require_all(parse_addresses(self._workers)), n_ctx=n_ctx,
            kv_type=None, n_threads=self._n_threads, n_slots=n_seq, n_here=self._n_here,
        )  # fmt: skip
        return split if split.workers else None

    def _use(self, form: ContextForm) -> None:
        """Compute in a context of this form from now on."""
        key = form.flash_attention, form.kv_type
        if key not in self._contexts:
            self._contexts[key] = self._model.open_context(
                n_ctx=self._n_ctx, n_batch=self._n_batch, n_threads=self._n_threads, type_k=form.kv_type,
                type_v=form.kv_type, flash_attention=form.flash_attention,
            )  # fmt: skip
        self._context, self._step = self._contexts[key], min(form.n_batch or self._n_batch, self._n_batch)

    def measure(
        self, *, kind: str, n_tokens: int, n_seq: int, n_threads: int, depth: int, seed: int, form: dict[str, Any]
    ) -> dict[str, Any]:
        """Run one test; its cost in seconds and joules. Tokens are random, the same for every contender."""
        self._use(ContextForm(**form))
        prefix, tokens = self._random(0, depth), self._random(seed, n_tokens)
        if kind == "prefill":
            cost, ttft = self._prefill(prefix, tokens, n_threads)
        elif kind == "draft":
            cost, ttft = self._pass(prefix, tokens, n_threads), None
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

    def _pass(self, prefix: list[int], tokens: list[int], n_threads: int) -> Cost:
        """The cost of one pass over the tokens after the prefix, with the logits of each."""
        context = self._context
        context.set_threads(n_threads)
        self._return_to(prefix)
        stopwatch = Stopwatch()
        context.decode(tokens, every_logits=True)
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
        for first in range(0, len(tokens), self._step):
            self._context.decode(tokens[first : first + self._step])


def _percent(event: Progress) -> int:
    return 100 * event.done // (event.total or 100)


def serve(questions: Iterable[dict[str, Any]], say: Say) -> None:
    """Answer requests until there are no more."""
    worker: BenchWorker | None = None
    for request in questions:
        try:
            if "load" in request:
                worker = BenchWorker(**request["load"])
                say(worker.load(say))
            elif worker is not None:
                say(worker.measure(**request["measure"]))
        except EdgellmError as error:
            say({"error": describe(error)})


if __name__ == "__main__":
    serve(requests(), open_answers())
