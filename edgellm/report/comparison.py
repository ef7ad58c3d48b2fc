"""What changed against a base: paired differences, the changed items with both answers, perplexity and divergence.

sections = comparison_sections(comparison, "smollm2 Q4_1")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgellm.evaluation.compare import ChangedItem, Comparison, PairedScore
from edgellm.measure.quality import Quality
from edgellm.report.charts.bars import Bar, BarGroup, bar_chart
from edgellm.report.charts.chart import Chart, ChartValue, with_range
from edgellm.report.items import changed_list
from edgellm.report.page import DataTable, ReportSection

HEADERS = ("Suite", "Now", "Base", "Difference", "95 %", "Items", "Gained", "Lost", "p")
# Bars of the chart, and characters of a name; a log from elsewhere may have any number.
MOST_BARS, MOST_OF_NAME = 40, 300
PAIRED = "Only items that both answered count, pair by pair: what is easy or hard for both cancels out."


def comparison_sections(found: Comparison, name: str) -> Iterator[ReportSection]:
    """The comparison of the model `name` with a base, as sections of a page."""
    groups = [found.total, *found.suites] if len(found.suites) > 1 else list(found.suites)
    base = found.base.model[:MOST_OF_NAME]
    table = DataTable(HEADERS, [_row(each) for each in groups], right=range(1, len(HEADERS)))
    left_out = f" {found.n_unpaired:,} items are only in one of them, or ask something else there." * bool(
        found.n_unpaired
    )
    yield ReportSection("against", f"Against {base}", PAIRED + left_out, [_chart(groups[:MOST_BARS], base)], [table])
    if found.changed:
        text = f"{_count(found.changed, 1)} gained, {_count(found.changed, -1)} lost; the largest changes first."
        more = changed_list(found.changed, name, base)
        yield ReportSection("changed", "Changed items", text, more=more)
    if found.quality is not None:
        yield _quality(found.quality)


def _count(changed: Sequence[ChangedItem], sign: int) -> str:
    return f"{sum(each.change * sign > 0 for each in changed):,}"


def _chart(groups: Sequence[PairedScore], base: str) -> Chart:
    bars = [
        Bar(each.name[:MOST_OF_NAME], ChartValue(each.difference, each.low, each.high), _series(each))
        for each in groups
    ]
    most = max([0.05, *(max(abs(bar.value.bottom), abs(bar.value.top)) for bar in bars)])
    note = (
        "In points of 100, with 95 % intervals of a bootstrap. The dashed line is no difference; right of it is better."
    )
    return bar_chart(
        f"difference to {base}",
        [BarGroup("", bars)],
        _points,
        least=-most,
        most=most,
        reference=0.0,
        note=note,
    )


def _series(group: PairedScore) -> int:
    """Better and worse in colours of their own, and grey where it may be chance."""
    if group.low <= 0 <= group.high:
        return 5
    return 2 if group.difference > 0 else 1


def _row(group: PairedScore) -> Sequence[str]:
    return (
        group.name[:MOST_OF_NAME],
        f"{100 * group.score:.1f} %",
        f"{100 * group.base:.1f} %",
        f"{100 * group.difference:+.1f}",
        f"{100 * group.low:+.1f} to {100 * group.high:+.1f}",
        f"{group.n_items:,}",
        f"{group.n_gained:,}",
        f"{group.n_lost:,}",
        f"{group.p_value:.2g}",
    )


def _points(value: ChartValue) -> str:
    return with_range(value, lambda share: f"{100 * share:+.1f}")


def _quality(found: Quality) -> ReportSection:
    """Perplexity of both, and the divergence of one from the other."""
    models = [("model", found.model), *([("base", found.base)] if found.base else [])]
    rows = [
        (f"perplexity of the {name}", f"{each.perplexity.value:,.4g} ± {each.perplexity.error:.2g}", each.quant)
        for name, each in models
    ]
    if divergence := found.divergence:
        spread = f"median {divergence.median:.3g}, 99 % {divergence.p99:.3g}, most {divergence.maximum:.3g}"
        change, error = 100 * divergence.perplexity_change, 100 * divergence.perplexity_change_error
        rows += [
            ("change of the perplexity", f"{change:+.1f} % ± {error:.1f} %", "paired"),
            ("KL divergence from the base", f"{divergence.mean:.3g}", spread),
            ("same most likely token", f"{100 * divergence.same_top:.1f} %", "of all positions"),
        ]
    text = f"{found.n_positions:,} predicted tokens of {found.text}, in windows of {found.n_ctx:,} tokens."
    return ReportSection("quality", "Perplexity", text, tables=[DataTable(("What", "Value", "More"), rows, right=(1,))])
