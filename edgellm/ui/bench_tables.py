"""Benchmarks as tables for people.

show_benchmark(result, history)
"""

from __future__ import annotations

from edgellm.measure.bench.history import History
from edgellm.measure.bench.remarks import bandwidths, changes, method, remarks
from edgellm.measure.bench.result import Benchmark, Contestant, Samples
from edgellm.measure.draft_comparison import DraftComparison
from edgellm.ui.console import note, print_fields, print_line, print_table
from edgellm.units import duration, size, threads, three_digits

# Columns of the rates that a narrow terminal does without, in this order.
SPARE = ("CORES", "RANGE", "J/TOKEN")


def show_benchmark(result: Benchmark, past: History) -> None:
    """Rates test by test, what each contender needs, where and how it was measured, what to know about it."""
    _show_rates(result)
    print_line("")
    _show_contenders(result)
    print_line("")
    print_fields(
        [
            ("machine", result.setting.cpu),
            ("memory", "; ".join(bandwidths(result))),
            ("engine", f"{result.setting.engine} {result.setting.stamp}, {result.setting.compiler}"),
            ("method", method(result)),
        ]
    )
    for text in (*remarks(result), *changes(result, past)):
        note(text)


def show_history(past: History) -> None:
    """Print what was measured earlier, oldest first."""
    rows = [
        (
            record.date[:16].replace("T", " "),
            record.cpu,
            record.stamp,
            record.contender,
            str(record.test) + (f" after {record.depth}" if record.depth else ""),
            str(record.test.n_threads),
            three_digits(record.median),
            f"{three_digits(record.lowest)} - {three_digits(record.highest)}",
        )
        for record in past.records
    ]
    if rows:
        headers = ("DATE (UTC)", "CPU", "ENGINE", "MODEL", "TEST", "THREADS", "TOK/S", "RANGE")
        print_table(headers, rows, right=(5, 6, 7), spare=("CPU", "ENGINE", "RANGE", "THREADS"))
    else:
        note("nothing was measured yet of this model on this machine")
    if past.n_unreadable:
        note(f"{past.n_unreadable} files of earlier benchmarks cannot be read, and are left out")


def show_drafts(result: DraftComparison) -> None:
    """What drafts gain, workload by workload."""
    headers = ("WORKLOAD", "ANSWERS", "PLAIN TOK/S", "RATIO", "MEDIAN", "LOWEST", "TOKENS A PASS", "RIGHT")
    rows = [
        (
            each.workload, str(len(each.answers)), three_digits(each.plain_rate), f"{each.ratio:.2f}",
            f"{each.median:.2f}", f"{each.lowest:.2f}", f"{each.tokens_per_pass:.2f}", f"{each.acceptance:.0%}",
        )
        for each in result.workloads
    ]  # fmt: skip
    print_table(headers, rows, right=tuple(range(1, len(headers))), spare=("MEDIAN", "ANSWERS"))
    note(f"{result.model}, {threads(result.threads)}: greedy answers with drafts over the same ones without, in pairs")


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
        row += [measurement.contender, three_digits(measurement.rate.median), _range(measurement.rate)]
        row += [_times(measurement.ratio)] if compared else []
        row += [f"{measurement.roofline.median:.2f}" if measurement.roofline else ""]
        row += [f"{measurement.cores_used.median:.1f}" if measurement.cores_used else ""]
        joules = measurement.joules_per_token
        rows.append([*row, *([f"{joules.median:.2g}" if joules else ""] if energy else [])])
        before = test
    first = headers.index("TOK/S")
    print_table(headers, rows, right=range(first, len(headers)), spare=[name for name in SPARE if name in headers])


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
    print_table(headers, rows, right=(1, 2, 3, 4, 5), spare=("FILE", "LOAD"))


def _first_tokens(result: Benchmark, contender: Contestant) -> str:
    """Times to the first token after the prompt, one for each number of threads."""
    found = (m.ttft_seconds for m in result.measurements if m.contender == contender.name)
    return " / ".join(duration(seconds.median) for seconds in found if seconds)


def _times(ratio: Samples | None) -> str:
    return f"{ratio.median:.2f}x" if ratio else ""


def _range(samples: Samples) -> str:
    return f"{three_digits(samples.lowest)} - {three_digits(samples.highest)}"
