"""The report of an evaluation: a chart for each suite, what changed against a base, and every item with its verdict.

ReportFile.at(path).write(evaluation_page(evaluation, comparison))
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from edgellm.evaluation.compare import Comparison
from edgellm.evaluation.evaluation import Evaluation
from edgellm.evaluation.score import GroupScore, SuiteScore
from edgellm.report.charts.bars import Bar, BarGroup, bar_chart
from edgellm.report.charts.chart import Chart, ChartValue, with_range
from edgellm.report.comparison import comparison_sections
from edgellm.report.items import item_list
from edgellm.report.page import DataTable, Fact, ReportPage, ReportSection
from edgellm.units import duration, three_digits

HEADERS = ("Suite", "Part", "Score", "95 %", "Items", "Right", "Loops", "Cut off", "Failed", "tok/s", "First token")
# Suites with a chart, and bars of a group; the table has all. A log from elsewhere may have any number.
MOST_CHARTS, MOST_BARS = 40, 40
# Characters of a name, and of all settings.
MOST_OF_NAME, MOST_OF_SETTINGS = 300, 3000
INTERVALS = "Whiskers are 95 % intervals by Wilson: where the score of very many such items most likely lies."


def evaluation_page(found: Evaluation, comparison: Comparison | None = None) -> ReportPage:
    """The page of an evaluation; a log that was read is enough for it."""
    header = found.header
    failed = sum(suite.total.n_failed for suite in found.suites)
    items = f"{len(found.items):,} item" + ("s" if len(found.items) != 1 else "")
    text = "Open an item for its prompt, its answer, and what the checker saw in it."
    return ReportPage(
        title=f"Answers of {header.model[:MOST_OF_NAME]}",
        subtitle=f"{items} of {len(found.suites)} suite{'s' * (len(found.suites) > 1)}; {header.date[:10]}",
        sections=[
            _scores(found.suites),
            *(comparison_sections(comparison, header.model[:MOST_OF_NAME]) if comparison else ()),
            ReportSection("items", "Items", text, more=item_list(found.items)),
        ],
        facts=[*_facts(found), *([("base", comparison.base.fingerprint)] if comparison else [])],
        remarks=[f"not answered, and counted as wrong: {failed:,}"] if failed else [],
    )


def _scores(suites: Sequence[SuiteScore]) -> ReportSection:
    rows = [row for suite in suites for row in _rows(suite)]
    table = DataTable(HEADERS, rows, right=range(2, len(HEADERS)))
    return ReportSection("scores", "Scores", INTERVALS, [_chart(suite) for suite in suites[:MOST_CHARTS]], [table])


def _chart(suite: SuiteScore) -> Chart:
    groups = [BarGroup("", [_bar(suite.total, "all", 0)])]
    for name, parts in _parts(suite):
        groups.append(BarGroup(f"by {name}", [_bar(part, part.name or "other", 2) for part in parts[:MOST_BARS]]))
    return bar_chart(suite.name[:MOST_OF_NAME], groups, _percent, most=1.0, note=_note(suite.total))


def _note(total: GroupScore) -> str:
    """How many items stand behind a chart, and what went wrong in writing them."""
    counts = ((total.n_loops, "looped"), (total.n_cut, "were cut off"), (total.n_failed, "failed"))
    return ", ".join([f"{total.n_items:,} items", *(f"{n:,} {word}" for n, word in counts if n)]) + "."


def _bar(group: GroupScore, name: str, series: int) -> Bar:
    return Bar(name[:MOST_OF_NAME], ChartValue(group.score, group.low, group.high), series)


def _parts(suite: SuiteScore) -> Iterator[tuple[str, Sequence[GroupScore]]]:
    for name, parts in (("category", suite.categories), ("language", suite.languages), ("pass", suite.passes)):
        if parts:
            yield name, parts


def _rows(suite: SuiteScore) -> Iterator[Sequence[str]]:
    yield _row(suite.name, "all", suite.total)
    for _, parts in _parts(suite):
        for part in parts:
            yield _row("", part.name or "other", part)


def _row(suite: str, part: str, group: GroupScore) -> Sequence[str]:
    counts = (group.n_items, group.n_right, group.n_loops, group.n_cut, group.n_failed)
    return (
        suite[:MOST_OF_NAME],
        part[:MOST_OF_NAME],
        f"{100 * group.score:.1f} %",
        f"{100 * group.low:.1f} to {100 * group.high:.1f} %",
        *(f"{count:,}" for count in counts),
        "" if group.rate is None else three_digits(group.rate),
        "" if group.ttft is None else duration(group.ttft),
    )


def _facts(found: Evaluation) -> Iterator[Fact]:
    header = found.header
    yield "model", header.model[:MOST_OF_NAME]
    yield "fingerprint", header.fingerprint[:MOST_OF_NAME]
    yield "machine", header.machine[:MOST_OF_NAME]
    yield "engine", f"{header.engine} {header.stamp}"[:MOST_OF_NAME]
    yield "date", header.date[:MOST_OF_NAME]
    yield (
        "settings",
        ", ".join(f"{name} {_setting(value)}" for name, value in header.settings.items())[:MOST_OF_SETTINGS],
    )
    yield "suites", ", ".join(f"{name} {digest}" for name, digest in header.suites.items())[:MOST_OF_SETTINGS]
    if found.path:
        yield "log", found.path.name


def _setting(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _percent(value: ChartValue) -> str:
    return with_range(value, lambda share: f"{100 * share:.0f}", " %")
