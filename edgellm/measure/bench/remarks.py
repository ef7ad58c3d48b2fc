"""What to know about a benchmark besides its figures, in sentences: for the terminal and for reports.

[*remarks(result), *changes(result, history)]
"""

from __future__ import annotations

from collections.abc import Iterator

from edgellm.measure.bench.history import History, previous
from edgellm.measure.bench.plan import STOCK
from edgellm.measure.bench.result import Benchmark
from edgellm.units import speed, three_digits


def remarks(result: Benchmark) -> Iterator[str]:
    """What ratios are to, what differs between contenders, and what was noisy."""
    for contender in result.contenders:
        if contender.against:
            yield f"{contender.name}: its ratios are to {contender.against}, round by round"
    for contender in result.contenders:
        if contender.kernels == STOCK and contender.path.stem.endswith("-stock"):
            yield f"{contender.name}: the same weights in place of a type which stock llama.cpp cannot read"
    if not result.together:
        yield "the models do not fit into memory together: each round loaded them one after the other"
    yield from _better_threads(result)
    if result.noisy:
        worst = max(result.noisy, key=lambda measurement: measurement.rate.spread)
        name = f"{worst.contender}, {worst.test} at {worst.test.n_threads} threads"
        often = f"{len(result.noisy)} of {len(result.measurements)} figures differ much between rounds"
        yield f"noisy: {often}, {name} by {100 * worst.rate.spread:.0f} %; is something else running?"


def _better_threads(result: Benchmark) -> Iterator[str]:
    """Where the threads that the other verbs use are not the best that were measured."""
    for contender in result.contenders:
        for kind in ("decode", "prefill"):
            found = {
                each.test.n_threads: each
                for each in result.measurements
                if (each.contender, each.test.kind, each.test.n_seq) == (contender.name, kind, 1)
            }
            tuning = contender.tuning
            used = found.get(tuning.n_threads if kind == "decode" else tuning.n_threads_batch) if tuning else None
            if used is None:
                continue
            best = max(found.values(), key=lambda each: each.rate.median)
            ratio = best.rate.over(used.rate)
            if ratio.is_gain():
                threads = f"{best.test.n_threads} thread{'s were' if best.test.n_threads > 1 else ' was'}"
                present = f"{ratio.median:.2f} times as fast as the {used.test.n_threads} in use"
                yield f"{contender.name}, {used.test}: {threads} {present}; edgellm tune finds and remembers the best"


def changes(result: Benchmark, past: History) -> Iterator[str]:
    """Against the last time."""
    contenders = {contender.name: contender for contender in result.contenders}
    for measurement in result.measurements:
        before = previous(past, result, contenders[measurement.contender], measurement)
        if before is not None:
            change = 100 * (measurement.rate.median / before.median - 1)
            at = f"{before.date[:10]} with engine {before.stamp} ({three_digits(before.median)})"
            yield f"{measurement.contender}, {measurement.test}: {change:+.0f} % since {at}"


def bandwidths(result: Benchmark) -> Iterator[str]:
    """How fast the memory was read, by number of threads."""
    for bandwidth in result.bandwidth:
        low, high = speed(bandwidth.rate.lowest), speed(bandwidth.rate.highest)
        threads = f"{bandwidth.n_threads} thread" + ("s" if bandwidth.n_threads > 1 else "")
        yield f"{threads} read {speed(bandwidth.rate.median)} ({low} - {high})"


def method(result: Benchmark) -> str:
    """Rounds, depth and warm-up in a line."""
    rounds = f"{result.n_rounds} rounds, interleaved; medians" if result.n_rounds > 1 else "1 round"
    after = f"after {result.depth:,} tokens" if result.depth else "from an empty context"
    return f"{rounds}; {after}; warm-up not counted"
