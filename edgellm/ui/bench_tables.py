"""Benchmarks as tables for people.

show_benchmark(result, history)
"""

from __future__ import annotations

from collections.abc import Iterator

from edgellm.measure.bench_history import History, previous
from edgellm.measure.bench_plan import STOCK
from edgellm.measure.bench_result import Benchmark, Contestant, Samples
from edgellm.ui.console import note, print_fields, print_json, print_line, print_table
from edgellm.ui.units import duration, size


def show_benchmark(result: Benchmark, past: History) -> None:
    """Rates test by test, what each contender needs, where and how it was measured, what to know about it."""
    _show_rates(result)
    print_line("")
    _show_contenders(result)
    print_line("")
    rounds = f"{result.n_rounds} rounds, interleaved; medians" if result.n_rounds > 1 else "1 round"
    after = f"after {result.depth:,} tokens" if result.depth else "from an empty context"
    print_fields(
        [
            ("machine", result.setting.cpu),
            ("memory", "; ".join(_bandwidths(result))),
            ("engine", f"{result.setting.engine} {result.setting.stamp}, {result.setting.compiler}"),
            ("method", f"{rounds}; {after}; warm-up not counted"),
        ]
    )
    for text in (*_remarks(result), *_changes(result, past)):
        note(text)


def show_history(past: History, *, as_json: bool) -> None:
    """What was measured earlier."""
    if as_json:
        print_json(past.records)
        return
    rows = [
        (
            record.date[:16].replace("T", " "),
            record.cpu,
            record.stamp,
            record.contender,
            str(record.test) + (f" after {record.depth}" if record.depth else ""),
            str(record.test.n_threads),
            _rate(record.median),
            f"{_rate(record.lowest)} - {_rate(record.highest)}",
        )
        for record in past.records
    ]
    if rows:
        headers = ("DATE (UTC)", "CPU", "ENGINE", "MODEL", "TEST", "THREADS", "TOK/S", "RANGE")
        print_table(headers, rows, right=(5, 6, 7))
    else:
        note("nothing was measured yet of this model on this machine")
    if past.n_unreadable:
        note(f"{past.n_unreadable} files of earlier benchmarks cannot be read, and are left out")


def _show_rates(result: Benchmark) -> None:
    several_threads = len(result.bandwidth) > 1
    compared = any(measurement.ratio for measurement in result.measurements)
    headers = ["TEST", *(["THREADS"] if several_threads else []), "MODEL", "TOK/S", "RANGE"]
    energy = any(measurement.joules_per_token for measurement in result.measurements)
    headers += [*(["RATIO"] if compared else []), "OF MEMORY SPEED", "CORES", *(["J/TOKEN"] if energy else [])]
    rows, before = [], ""
    for measurement in result.measurements:
        test = str(measurement.test)
        row = ["" if test == before and not several_threads else test]
        row += [str(measurement.test.n_threads)] if several_threads else []
        row += [measurement.contender, _rate(measurement.rate.median), _range(measurement.rate)]
        row += [_times(measurement.ratio)] if compared else []
        row += [f"{measurement.roofline.median:.2f}" if measurement.roofline else ""]
        row += [f"{measurement.cores_used.median:.1f}" if measurement.cores_used else ""]
        joules = measurement.joules_per_token
        rows.append([*row, *([f"{joules.median:.2g}" if joules else ""] if energy else [])])
        before = test
    first = headers.index("TOK/S")
    print_table(headers, rows, right=range(first, len(headers)))


def _show_contenders(result: Benchmark) -> None:
    rows = [
        (
            contender.name,
            duration(contender.load_seconds.median) if contender.load_seconds else "",
            _first_tokens(result, contender),
            size(contender.peak_resident_bytes) if contender.peak_resident_bytes else "",
            size(contender.n_bytes),
            size(contender.bytes_per_token) if contender.bytes_per_token else "",
        )
        for contender in result.contenders
    ]
    headers = ("MODEL", "LOAD", "FIRST TOKEN", "PEAK MEMORY", "FILE", "READ PER TOKEN")
    print_table(headers, rows, right=(1, 2, 3, 4, 5))


def _first_tokens(result: Benchmark, contender: Contestant) -> str:
    """Times to the first token after the prompt, one for each number of threads."""
    found = (m.ttft_seconds for m in result.measurements if m.contender == contender.name)
    return " / ".join(duration(seconds.median) for seconds in found if seconds)


def _bandwidths(result: Benchmark) -> Iterator[str]:
    for bandwidth in result.bandwidth:
        low, high = size(bandwidth.rate.lowest), size(bandwidth.rate.highest)
        threads = f"{bandwidth.n_threads} thread" + ("s" if bandwidth.n_threads > 1 else "")
        yield f"{threads} read {size(bandwidth.rate.median)}/s ({low} - {high})"


def _remarks(result: Benchmark) -> Iterator[str]:
    for contender in result.contenders:
        if contender.against:
            yield f"{contender.name}: its ratios are to {contender.against}, round by round"
    for contender in result.contenders:
        if contender.kernels == STOCK and contender.path.stem.endswith("TQ2_0"):
            yield f"{contender.name}: the same weights in TQ2_0 where they are I2_S, which stock llama.cpp cannot read"
    if not result.together:
        yield "the models do not fit into memory together: each round loaded them one after the other"
    if result.noisy:
        worst = max(result.noisy, key=lambda measurement: measurement.rate.spread)
        name = f"{worst.contender}, {worst.test} at {worst.test.n_threads} threads"
        often = f"{len(result.noisy)} of {len(result.measurements)} figures differ much between rounds"
        yield f"noisy: {often}, {name} by {100 * worst.rate.spread:.0f} %; is something else running?"


def _changes(result: Benchmark, past: History) -> Iterator[str]:
    """Against the last time."""
    contenders = {contender.name: contender for contender in result.contenders}
    for measurement in result.measurements:
        before = previous(past, result, contenders[measurement.contender], measurement)
        if before is not None:
            change = 100 * (measurement.rate.median / before.median - 1)
            at = f"{before.date[:10]} with engine {before.stamp}"
            yield f"{measurement.contender}, {measurement.test}: {change:+.0f} % since {at} ({_rate(before.median)})"


def _times(ratio: Samples | None) -> str:
    return f"{ratio.median:.2f}x" if ratio else ""


def _range(samples: Samples) -> str:
    return f"{_rate(samples.lowest)} - {_rate(samples.highest)}"


def _rate(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
