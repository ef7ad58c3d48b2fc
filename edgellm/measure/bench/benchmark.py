"""Runs a benchmark: measures all contenders test by test and round by round, then computes medians and ratios.

    result = benchmark([Contender("bitnet-2b I2_S", path)], BenchPlan(n_threads=(2,)), setting, read)
    result.measurements[0].rate.median

Every contender has its own process, and all of them stay loaded between rounds. Noise on a machine affects
measurements that are close in time alike. So a round runs each test on one contender after the other, and every
second round runs in reverse. Each round also measures the read bandwidth.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgellm.engine.kernels import Reader
from edgellm.errors import DoesNotFit, UnsupportedModel, UsageError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.machine import memory
from edgellm.machine.child import WaitHooks, WaitInterrupted
from edgellm.measure.bandwidth import buffer_bytes, read_bandwidth
from edgellm.measure.bench.peer import PeerRunner, check_peer
from edgellm.measure.bench.plan import BenchPlan, Contender
from edgellm.measure.bench.result import (
    Bandwidth,
    Benchmark,
    Contestant,
    Measurement,
    Reading,
    Samples,
    Setting,
    Test,
)
from edgellm.measure.bench.runner import EngineRunner, Runner
from edgellm.models.fit.memory import RunPlan, estimate
from edgellm.models.fit.outline import Outline
from edgellm.models.fit.traffic import bytes_per_token
from edgellm.progress import UNOBSERVED, Observer, Progress

_CHUNK = 16 << 20


@dataclass(slots=True)
class _Round:
    """The results of one round."""

    readings: dict[tuple[int, Test], Reading] = field(default_factory=dict)
    bandwidth: dict[int, float] = field(default_factory=dict)
    load_seconds: dict[int, float] = field(default_factory=dict)


def benchmark(
    contenders: Sequence[Contender], plan: BenchPlan, setting: Setting, read: Reader, watch: Observer = UNOBSERVED
) -> Benchmark:
    """Measure all contenders side by side; `read` is the function that measures the memory bandwidth.

    Raises:
        CorruptFile, UnsupportedModel: a file is damaged, not GGUF, or not supported by the engine.
        UsageError: the tests do not fit in a model's context, or there is nothing to measure.
        DoesNotFit: there is too little memory for even one of them (unless `plan.force`).
        EngineError: a worker or a peer died, hangs, or printed invalid output.
        KeyboardInterrupt: stopped before the first round was complete.
    """
    for contender in contenders:
        if contender.peer is not None:
            check_peer(contender.peer.program)
    needs = [_need(contender, plan) for contender in contenders]
    together = _fit_together(contenders, needs, plan)
    for path in dict.fromkeys(contender.path for contender in contenders):
        _into_page_cache(path, watch)
    runner = _RoundRunner(contenders, plan, read, watch, together=together)
    complete = True
    try:
        with runner:
            for number in range(plan.n_rounds):
                runner.run(number)
    except WaitInterrupted:
        complete = False
        if not runner.rounds:
            raise KeyboardInterrupt from None
    known = tuple(_contestants(contenders, plan, runner))
    return Benchmark(
        setting=setting,
        n_rounds=len(runner.rounds),
        depth=plan.depth,
        together=together,
        complete=complete,
        contenders=known,
        bandwidth=tuple(_bandwidth(plan, runner.rounds)),
        measurements=tuple(_measurements(known, plan, runner.rounds)),
    )


class _RoundRunner:
    """The runners of all contenders and their completed rounds; incomplete rounds are dropped."""

    def __init__(
        self, contenders: Sequence[Contender], plan: BenchPlan, read: Reader, watch: Observer, *, together: bool
    ) -> None:
        self.rounds: list[_Round] = []
        self.peaks: dict[int, int] = {}
        self._contenders, self._plan, self._watch, self._together = contenders, plan, watch, together
        self._read = read
        self._stack = ExitStack()
        self._runners: dict[int, Runner] = {}
        self._doing = Progress("loading")
        self._done = 0
        n_tests = sum(1 for n_threads in plan.n_threads for _ in plan.tests(n_threads))
        self._total = plan.n_rounds * n_tests * len(contenders)

    def __enter__(self) -> _RoundRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, number: int) -> None:
        """Run one round, forwards or backwards by its number, and keep it when it is complete."""
        order = list(range(len(self._contenders)))
        if number % 2:
            order.reverse()
        now = _Round()
        for n_threads in self._plan.n_threads:
            self._show("measuring", "read bandwidth")
            now.bandwidth[n_threads] = read_bandwidth(n_threads, self._read)
            if self._watch.interrupted():
                raise WaitInterrupted
        if self._together:
            for test in self._tests():
                for index in order:
                    self._measure(self._started(index, self._stack, now), index, test, number, now)
        else:
            for index in order:
                with ExitStack() as stack:
                    runner = self._started(index, stack, now)
                    for test in self._tests():
                        self._measure(runner, index, test, number, now)
                self._runners.clear()
        self.rounds.append(now)

    def _tests(self) -> Iterator[Test]:
        for n_threads in self._plan.n_threads:
            yield from self._plan.tests(n_threads)

    def _started(self, index: int, stack: ExitStack, now: _Round) -> Runner:
        """Return the runner of a contender, started and warmed up if necessary."""
        if index in self._runners:
            return self._runners[index]
        contender = self._contenders[index]
        hooks = WaitHooks(self._watch.interrupted, lambda: self._watch.report(self._doing))
        runner: Runner
        if contender.peer is None:
            runner = EngineRunner(contender, self._plan, hooks)
        else:
            runner = PeerRunner(contender, contender.peer, self._plan, hooks)
        stack.callback(runner.close)
        self._show("loading", contender.name)
        runner.start()
        self._runners[index] = runner
        if runner.load_seconds is not None:
            now.load_seconds[index] = runner.load_seconds
        if contender.peer is None:  # a peer warms up by itself before each measurement
            self._show("warming up", contender.name)
            for test in self._tests():
                runner.measure(test if test.kind == "prefill" else replace(test, n_tokens=1), seed=0)
        return runner

    def _measure(self, runner: Runner, index: int, test: Test, number: int, now: _Round) -> None:
        name = self._contenders[index].name
        self._show("measuring", f"{name}  {test}")
        reading = runner.measure(test, seed=number)
        self._done += 1
        if reading is not None:
            now.readings[index, test] = reading
        if runner.peak_resident_bytes is not None:
            self.peaks[index] = max(self.peaks.get(index, 0), runner.peak_resident_bytes)

    def _show(self, stage: str, detail: str) -> None:
        self._doing = Progress(stage, self._done, self._total, "steps", detail)
        self._watch.report(self._doing)


def _need(contender: Contender, plan: BenchPlan) -> int:
    """Return the most memory that a contender takes, in bytes; raise for one that cannot be measured."""
    try:
        with GGUFFile.open(contender.path) as gguf:
            _check(gguf, plan)
            outline = Outline.of([gguf])
            if contender.workers:  # how much is here is planned when it is loaded
                return 0
            need = estimate(outline, RunPlan(plan.n_ctx, n_batch=plan.n_batch)).total
            for n_seq in plan.n_seqs:
                if n_seq > 1:
                    more = estimate(outline, RunPlan(plan.n_ctx_seq, n_seq, n_batch=plan.n_batch))
                    need += more.kv_cache + more.compute
            return need
    except UnsupportedModel:
        if contender.peer is None:
            raise
        return contender.path.stat().st_size  # it has types that only the peer supports


def _check(gguf: GGUFFile, plan: BenchPlan) -> None:
    name = gguf.path.name
    if not gguf.get_bool(gguf.key("attention.causal"), True):
        raise UsageError(f"{name} generates nothing", why="it is an embedding model", hint="edgellm list")
    trained = gguf.get_int(gguf.key("context_length"))
    if plan.n_ctx > trained:
        why = f"its context is {trained:,} tokens, but the tests take {plan.n_ctx:,}"
        hint = f"-p {trained} -n {min(trained, plan.n_gen)}"
        raise UsageError(f"the tests do not fit in the context of {name}", why=why, hint=hint, n_ctx_train=trained)


def _fit_together(contenders: Sequence[Contender], needs: Sequence[int], plan: BenchPlan) -> bool:
    """Whether all of them can be loaded at once; raise for one that is too large even alone."""
    left = memory.available() - buffer_bytes()
    largest = max(needs)
    if largest > left and not plan.force:
        name = contenders[needs.index(largest)].name
        raise DoesNotFit(
            f"{name} needs {largest / 1e9:.2f} GB, but only {max(0, left) / 1e9:.2f} GB is available",
            why=f"{buffer_bytes() / 1e9:.2f} GB is reserved for measuring the bandwidth",
            hint="use a smaller model, or --force",
            needed=largest,
            available=left,
        )
    return sum(needs) <= left


def _into_page_cache(path: Path, watch: Observer) -> None:
    """Read a file once, so that no contender waits for the disk and load times are comparable."""
    done, total = 0, path.stat().st_size
    buffer = bytearray(_CHUNK)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            done += count
            watch.report(Progress(f"reading {path.name}", done, total, "B"))
            if watch.interrupted():
                raise KeyboardInterrupt


def _contestants(contenders: Sequence[Contender], plan: BenchPlan, runner: _RoundRunner) -> Iterator[Contestant]:
    for index, contender in enumerate(contenders):
        loads = tuple(now.load_seconds[index] for now in runner.rounds if index in now.load_seconds)
        yield Contestant(
            name=contender.name,
            path=contender.path,
            fingerprint=fingerprint(contender.path),
            kernels=contender.kernels,
            against=contender.against,
            peer=contender.peer.program if contender.peer else None,
            n_bytes=contender.path.stat().st_size,
            bytes_per_token=_bytes_per_token(contender, plan),
            load_seconds=Samples(loads) if loads else None,
            peak_resident_bytes=runner.peaks.get(index),
            tuning=contender.tuning,
        )


def _bytes_per_token(contender: Contender, plan: BenchPlan) -> int | None:
    """Return the bytes that decoding one token reads; None for a peer's file in types unknown to edgellm."""
    try:
        with GGUFFile.open(contender.path) as gguf:
            # Each token reads one more cache entry than the previous one.
            return bytes_per_token(gguf, depth=plan.depth + (plan.n_gen + 1) / 2)
    except UnsupportedModel:
        return None


def fingerprint(path: Path) -> str:
    """Return a hash of a model's header (metadata, vocabulary, shapes, types) and size; its path does not matter."""
    try:
        with GGUFFile.open(path) as gguf:
            n_bytes = gguf.data_offset
    except UnsupportedModel:
        n_bytes = _CHUNK
    with path.open("rb") as file:
        return hashlib.sha256(b"%d " % path.stat().st_size + file.read(n_bytes)).hexdigest()[:16]


def _bandwidth(plan: BenchPlan, rounds: Sequence[_Round]) -> Iterator[Bandwidth]:
    for n_threads in plan.n_threads:
        yield Bandwidth(n_threads, Samples(tuple(now.bandwidth[n_threads] for now in rounds)))


def _measurements(contenders: Sequence[Contestant], plan: BenchPlan, rounds: Sequence[_Round]) -> Iterator[Measurement]:
    """Yield the measurements test by test, those of all contenders together."""
    index_of = {contender.name: index for index, contender in enumerate(contenders)}
    for bandwidth in _bandwidth(plan, rounds):
        for test in plan.tests(bandwidth.n_threads):
            rates = _rates(rounds, test)
            for index, rate in sorted(rates.items()):
                contender = contenders[index]
                base = rates.get(index_of[contender.against]) if contender.against else None
                yield Measurement(
                    contender=contender.name,
                    test=test,
                    rate=rate,
                    ttft_seconds=_known(now.readings[index, test].ttft_seconds for now in rounds),
                    ratio=rate.over(base) if base else None,
                    roofline=_roofline(contender, test, rate, bandwidth),
                    cores_used=_known(now.readings[index, test].cores_used for now in rounds),
                    joules_per_token=_known(now.readings[index, test].joules_per_token for now in rounds),
                )


def _known(values: Iterable[float | None]) -> Samples | None:
    """Return the values as samples, or None if one is missing, as some contenders and machines lack them."""
    known = tuple(value for value in values if value is not None)
    return Samples(known) if known else None


def _roofline(contender: Contestant, test: Test, rate: Samples, bandwidth: Bandwidth) -> Samples | None:
    """Return the share of the read bandwidth in use; None unless one sequence decodes, which alone reads that much."""
    n_bytes = contender.bytes_per_token
    if n_bytes is None or test.kind != "decode" or test.n_seq > 1:
        return None
    return Samples(tuple(n_bytes * value for value in rate.values)).over(bandwidth.rate)


def _rates(rounds: Sequence[_Round], test: Test) -> dict[int, Samples]:
    """Return the rates of a test by contender."""
    found: dict[int, list[float]] = defaultdict(list)
    for now in rounds:
        for (index, of), reading in now.readings.items():
            if of == test:
                found[index].append(reading.rate)
    return {index: Samples(tuple(values)) for index, values in found.items()}
