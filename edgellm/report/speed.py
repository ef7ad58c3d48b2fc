"""The report of a benchmark: speed by model, over threads and sequences, against memory, a peer and earlier runs.

ReportFile.at(path).write(benchmark_page(result, history))
ReportFile.at(path).write(history_page(history))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from edgellm.measure.bench.history import History, records
from edgellm.measure.bench.remarks import bandwidths, changes, method, remarks
from edgellm.measure.bench.result import NOISY, Benchmark, Contestant, Measurement, Samples, Test
from edgellm.report.charts.bars import Bar, BarGroup, bar_chart
from edgellm.report.charts.chart import Chart, ChartValue, with_range
from edgellm.report.charts.points import Series, point_chart
from edgellm.report.page import DataTable, ReportPage, ReportSection
from edgellm.report.speed_history import depth_charts, engine_charts, history_table
from edgellm.units import duration, size, three_digits

RATE = "tok/s"
WHISKERS = "Bars and points are medians of all rounds; whiskers go from the slowest round to the fastest."
NOISE = f"{100 * NOISY:.0f} %"


def benchmark_page(result: Benchmark, past: History) -> ReportPage:
    """The page of a benchmark; `past` are the earlier results of the same models."""
    setting = result.setting
    names = ", ".join(contender.name for contender in result.contenders)
    sections = [_speed(result), *_over_sequences(result), *_comparison(result), *_memory_speed(result), _needs(result)]
    return ReportPage(
        title=f"Speed of {names}",
        subtitle=f"{setting.cpu}, {setting.date[:10]}",
        sections=[*sections, *_past(past, result)],
        facts=[
            ("machine", setting.cpu),
            ("memory", "; ".join(bandwidths(result)) or "not measured"),
            ("engine", f"{setting.engine} {setting.stamp}"),
            ("compiler", setting.compiler),
            ("threads", ", ".join(str(n) for n in _thread_counts(result))),
            ("method", method(result) + ("" if result.complete else "; stopped early")),
            ("date", setting.date),
            *((contender.name, _contestant(contender)) for contender in result.contenders),
        ],
        remarks=[*remarks(result), *changes(result, past)],
    )


def history_page(past: History) -> ReportPage:
    """The page of earlier benchmarks alone."""
    names = ", ".join(dict.fromkeys(record.contender for record in past.records))
    cpus = ", ".join(dict.fromkeys(record.cpu for record in past.records))
    unreadable = f"{past.n_unreadable} files of earlier benchmarks cannot be read, and are left out"
    return ReportPage(
        title=f"Earlier speed of {names}" if names else "Nothing was measured yet",
        subtitle=cpus,
        sections=list(_history(past)),
        facts=[("machine", cpus), ("runs", str(len({record.date for record in past.records})))],
        remarks=[unreadable] if past.n_unreadable else [],
    )


def _speed(result: Benchmark) -> ReportSection:
    """A chart for each test: over threads if there are several counts, else a bar for each contender."""
    draw = _over_threads if len(_thread_counts(result)) > 1 else _by_contender
    charts = [draw(result, test, found) for test, found in _by_test(result.measurements)]
    compared = any(measurement.ratio for measurement in result.measurements)
    energy = any(measurement.joules_per_token for measurement in result.measurements)
    headers = ["Test", "Threads", "Model", RATE, "Range", *(["Ratio"] if compared else []), "Of memory speed"]
    headers += ["First token", "Cores", *(["J/token"] if energy else []), "Noise"]
    rows = [_row(measurement, compared, energy) for measurement in result.measurements]
    table = DataTable(headers, rows, right=(1, *range(3, len(headers) - 1)))
    return ReportSection("speed", "Speed", WHISKERS, charts, [table])


def _row(measurement: Measurement, compared: bool, energy: bool) -> Sequence[str]:
    rate = measurement.rate
    cells = [str(measurement.test), str(measurement.test.n_threads), measurement.contender, three_digits(rate.median)]
    cells.append(f"{three_digits(rate.lowest)} to {three_digits(rate.highest)}")
    cells += [f"{measurement.ratio.median:.2f}×" if measurement.ratio else ""] if compared else []
    cells.append(f"{100 * measurement.roofline.median:.0f} %" if measurement.roofline else "")
    cells.append(duration(measurement.ttft_seconds.median) if measurement.ttft_seconds else "")
    cells.append(f"{measurement.cores_used.median:.1f}" if measurement.cores_used else "")
    joules = measurement.joules_per_token
    cells += [f"{joules.median:.2g}" if joules else ""] if energy else []
    return [*cells, _noise(rate)]


def _noise(samples: Samples) -> str:
    return f"noisy (±{50 * samples.spread:.0f} %)" if samples.spread > NOISY else ""


def _mark(samples: Samples) -> str:
    return "noisy" if samples.spread > NOISY else ""


def _by_test(measurements: Sequence[Measurement]) -> Iterator[tuple[str, Sequence[Measurement]]]:
    """The measurements of each test, whatever the number of threads."""
    tests = dict.fromkeys(str(measurement.test) for measurement in measurements)
    for test in tests:
        yield test, [measurement for measurement in measurements if str(measurement.test) == test]


def _by_contender(result: Benchmark, test: str, found: Sequence[Measurement]) -> Chart:
    bars = [_bar(result, measurement, measurement.rate) for measurement in found]
    return bar_chart(f"{test}, {RATE}", [BarGroup("", bars)], _rate, note="More is better.")


def _over_threads(result: Benchmark, test: str, found: Sequence[Measurement]) -> Chart:
    series = [
        Series(name, {each.test.n_threads: _value(each.rate) for each in found if each.contender == name})
        for name in _names(found)
    ]
    return point_chart(
        f"{test}, over threads", series, "threads", RATE, note=_noisy_points(found, lambda test: test.n_threads)
    )


def _over_sequences(result: Benchmark) -> Iterator[ReportSection]:
    """Decoding several sequences at once, if that was measured."""
    charts = []
    for n_threads in _thread_counts(result):
        found = [
            each for each in result.measurements if each.test.kind == "decode" and each.test.n_threads == n_threads
        ]
        if len({each.test.n_seq for each in found}) > 1:
            series = [
                Series(name, {each.test.n_seq: _value(each.rate) for each in found if each.contender == name})
                for name in _names(found)
            ]
            threads = f"{n_threads} thread" + ("s" if n_threads > 1 else "")
            title = f"decode over sequences, {threads}"
            note = _noisy_points(found, lambda test: test.n_seq)
            charts.append(point_chart(title, series, "sequences at once", RATE, note=note))
    if charts:
        text = "Tokens per second of all sequences together, when several are generated at once."
        yield ReportSection("sequences", "Several sequences", text, charts)


def _comparison(result: Benchmark) -> Iterator[ReportSection]:
    """Ratios to another contender, computed round by round."""
    compared = [measurement for measurement in result.measurements if measurement.ratio]
    against = {contender.name: contender.against for contender in result.contenders}
    charts = []
    for name in _names(compared):
        bars = [
            Bar(_place(result, each), _value(each.ratio), _series(result, name), _mark(each.ratio))
            for each in compared
            if each.contender == name and each.ratio
        ]
        note = "The dashed line is 1: equally fast. Right of it this model is faster."
        charts.append(bar_chart(f"{name} over {against[name]}", [BarGroup("", bars)], _times, reference=1.0, note=note))
    if charts:
        text = "Ratios of the rates in the same round, so that what slowed the whole machine cancels out."
        yield ReportSection("ratio", "Comparison", text, charts)


def _memory_speed(result: Benchmark) -> Iterator[ReportSection]:
    """The share of the memory's speed that decoding used."""
    found = [each for each in result.measurements if each.roofline]
    groups = [
        BarGroup(
            name,
            [
                Bar(_place(result, each), _value(each.roofline), _series(result, name), _mark(each.roofline))
                for each in found
                if each.contender == name and each.roofline
            ],
        )
        for name in _names(found)
    ]
    if groups:
        chart = bar_chart(
            "read by decoding, of the memory's speed",
            groups,
            _percent,
            most=max(1.0, *(bar.value.top for each in groups for bar in each.bars)),
            note="The whole width is the speed at which this many threads read memory and do nothing else.",
        )
        text = (
            "Decoding a token reads all weights once; memory bounds it. What is left is lost to computing and waiting."
        )
        yield ReportSection("roofline", "Of the memory's speed", text, [chart])


def _needs(result: Benchmark) -> ReportSection:
    """What each contender takes, and speed against memory if there are several."""
    rows = [
        (
            contender.name,
            size(contender.peak_resident_bytes) if contender.peak_resident_bytes else "",
            size(contender.n_bytes),
            size(contender.bytes_per_token) if contender.bytes_per_token else "",
            duration(contender.load_seconds.median) if contender.load_seconds else "",
        )
        for contender in result.contenders
    ]
    table = DataTable(("Model", "Peak memory", "File", "Read per token", "Load"), rows, right=(1, 2, 3, 4))
    return ReportSection("memory", "Memory", "", list(_speed_against_memory(result)), [table])


def _speed_against_memory(result: Benchmark) -> Iterator[Chart]:
    """A point for each contender, at its fastest number of threads."""
    series = []
    for contender in result.contenders:
        rates = [
            each.rate
            for each in result.measurements
            if each.contender == contender.name and each.test.kind == "decode" and each.test.n_seq == 1
        ]
        if rates and contender.peak_resident_bytes:
            best = max(rates, key=lambda rate: rate.median)
            series.append(Series(contender.name, {contender.peak_resident_bytes / 1e9: _value(best)}))
    if len(series) > 1:
        note = "Up is faster, left is smaller."
        yield point_chart("speed against memory, decode", series, "GB peak memory", RATE, is_joined=False, note=note)


def _past(past: History, result: Benchmark) -> Iterator[ReportSection]:
    """Earlier runs of the same tests on the same machine."""
    tests = {measurement.test for measurement in result.measurements}
    same = [each for each in past.records if each.cpu == result.setting.cpu and each.test in tests]
    if same:
        yield from _history(History((*same, *records(result)), past.n_unreadable))


def _history(past: History) -> Iterator[ReportSection]:
    charts = list(depth_charts(past.records))
    if charts:
        yield ReportSection("depth", "Over the context", "With so many tokens in the context already.", charts)
    text = (
        "The same model, test and CPU with each engine; whiskers go from the slowest round of all runs to the fastest."
    )
    charts = list(engine_charts(past.records))
    if past.records:
        yield ReportSection("history", "Earlier runs", text if charts else "", charts, [history_table(past.records)])


def _bar(result: Benchmark, measurement: Measurement, samples: Samples) -> Bar:
    name = measurement.contender
    return Bar(name, _value(samples), _series(result, name), _mark(samples))


def _place(result: Benchmark, measurement: Measurement) -> str:
    """The test, and the threads where there are several counts."""
    n_threads = measurement.test.n_threads
    threads = f", {n_threads} thread" + ("s" if n_threads > 1 else "")
    return str(measurement.test) + (threads if len(_thread_counts(result)) > 1 else "")


def _series(result: Benchmark, name: str) -> int:
    """The colour of a contender, the same in all charts."""
    return [contender.name for contender in result.contenders].index(name)


def _names(found: Sequence[Measurement]) -> Sequence[str]:
    return list(dict.fromkeys(measurement.contender for measurement in found))


def _thread_counts(result: Benchmark) -> Sequence[int]:
    return sorted({measurement.test.n_threads for measurement in result.measurements})


def _noisy_points(found: Sequence[Measurement], place: Callable[[Test], int]) -> str:
    """Which points are noisy, by their place on the horizontal axis."""
    noisy = [f"{each.contender} at {place(each.test)}" for each in found if each.rate.spread > NOISY]
    return f"Noisy, with a spread above {NOISE}: {', '.join(noisy)}." if noisy else "Higher is better."


def _value(samples: Samples) -> ChartValue:
    return ChartValue(samples.median, samples.lowest, samples.highest)


def _rate(value: ChartValue) -> str:
    return with_range(value, three_digits)


def _times(value: ChartValue) -> str:
    return with_range(value, lambda number: f"{number:.2f}", "×")


def _percent(value: ChartValue) -> str:
    return with_range(value, lambda number: f"{100 * number:.0f}", " %")


def _contestant(contender: Contestant) -> str:
    """Where the model lies and what runs it."""
    kernels = f"kernels {contender.kernels}" if contender.kernels else ""
    runner = contender.peer.name if contender.peer else ""
    return ", ".join(filter(None, (contender.path.name, size(contender.n_bytes), kernels, runner)))
