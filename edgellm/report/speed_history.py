"""Charts and a table of earlier benchmarks: over versions of the engine, and over the depth of the context.

charts = [*engine_charts(history.records), *depth_charts(history.records)]
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from edgellm.measure.bench.history import HistoryRecord
from edgellm.report.charts.chart import Chart, ChartValue
from edgellm.report.charts.points import Series, point_chart
from edgellm.report.page import DataTable
from edgellm.units import three_digits

RATE = "tok/s"
# Versions of the engine on one axis, the latest ones.
MOST_ENGINES = 12
# Rows of the table, the latest ones.
MOST_ROWS = 1000


def engine_charts(records: Sequence[HistoryRecord]) -> Iterator[Chart]:
    """A chart for each test that ran with two engines or more, on the same CPU and after the same depth."""
    for (cpu, depth, test), found in _grouped(records, lambda record: (record.cpu, record.depth, record.test)):
        engines = list(dict.fromkeys(map(_engine, found)))[-MOST_ENGINES:]
        if len(engines) < 2:
            continue
        shown = [record for record in found if _engine(record) in engines]
        places = {record: float(engines.index(_engine(record))) for record in shown}
        series = list(_series(shown, places.__getitem__))
        threads = f"{test.n_threads} thread" + ("s" if test.n_threads > 1 else "")
        title = ", ".join([str(test), threads, *([f"after {depth:,} tokens"] if depth else [])])
        names = {float(n): engine for n, engine in enumerate(engines)}
        yield point_chart(title, series, "engine", RATE, names=names, note=cpu)


def depth_charts(records: Sequence[HistoryRecord]) -> Iterator[Chart]:
    """A chart for each test that the latest engine on a CPU ran after two depths or more."""
    for cpu, of_cpu in _grouped(records, lambda record: record.cpu):
        engine = _engine(of_cpu[-1])
        latest = [record for record in of_cpu if _engine(record) == engine]
        for test, found in _grouped(latest, lambda record: record.test):
            if len({record.depth for record in found}) > 1:
                series = list(_series(found, lambda record: record.depth))
                title = f"{test}, {test.n_threads} thread" + ("s" if test.n_threads > 1 else "")
                note = f"engine {engine}, {cpu}"
                yield point_chart(title, series, "tokens in the context", RATE, note=note)


def history_table(records: Sequence[HistoryRecord]) -> DataTable:
    """Every earlier result, the latest first."""
    headers = ("Date (UTC)", "Engine", "Model", "Test", "Threads", RATE, "Range")
    rows = [
        (
            record.date[:16].replace("T", " "),
            _engine(record),
            record.contender,
            str(record.test) + (f" after {record.depth:,}" if record.depth else ""),
            str(record.test.n_threads),
            three_digits(record.median),
            f"{three_digits(record.lowest)} to {three_digits(record.highest)}",
        )
        for record in reversed(records[-MOST_ROWS:])
    ]
    return DataTable(headers, rows, right=(4, 5, 6))


def _series(records: Sequence[HistoryRecord], place: Callable[[HistoryRecord], float]) -> Iterator[Series]:
    """A series for each model on each set of kernels: the median of all runs at a place, and all their rounds."""
    for _, found in _grouped(records, lambda record: (record.fingerprint, record.kernels, record.peer)):
        points = {x: _value(at) for x, at in _grouped(found, place)}
        yield Series(found[-1].contender, points)


def _value(records: Sequence[HistoryRecord]) -> ChartValue:
    return ChartValue(
        statistics.median(record.median for record in records),
        min(record.lowest for record in records),
        max(record.highest for record in records),
    )


def _grouped(
    records: Sequence[HistoryRecord], key: Callable[[HistoryRecord], Any]
) -> Sequence[tuple[Any, Sequence[HistoryRecord]]]:
    """The records by a key, in the order in which the keys appear."""
    groups: dict[Any, list[HistoryRecord]] = defaultdict(list)
    for record in records:
        groups[key(record)].append(record)
    return list(groups.items())


def _engine(record: HistoryRecord) -> str:
    return f"{record.engine} {record.stamp[:8]}"
