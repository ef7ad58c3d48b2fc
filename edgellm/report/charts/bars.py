"""A chart of horizontal bars, each under its name and its value, with whiskers for intervals.

chart = bar_chart("decode 128", [BarGroup("", [Bar("smollm2", ChartValue(42.6, 41.4, 43.6))])], speed)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgellm.report.charts.chart import LINE, TEXT, WIDTH, Chart, ChartValue, Scale, group, shortened, text, text_width
from edgellm.report.markup import Markup, element

BAR, GAP = 10, 12
# Half of the line at the end of a whisker.
CAP = 4
# Between a name and a value.
SPACE = 12


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar; `mark` is a word behind its value (noisy), `series` numbers its colour."""

    name: str
    value: ChartValue
    series: int = 0
    mark: str = ""


@dataclass(frozen=True, slots=True)
class BarGroup:
    """Bars under a common heading, which may be empty."""

    name: str
    bars: Sequence[Bar]


def bar_chart(
    title: str,
    groups: Sequence[BarGroup],
    write: Callable[[ChartValue], str],
    *,
    least: float = 0.0,
    most: float | None = None,
    reference: float | None = None,
    note: str = "",
) -> Chart:
    """Draw bars from 0 to their values.

    Args:
        write: a value as text, with its unit and interval.
        least: the value at the left edge; below 0 for differences.
        most: the value at the right edge; None: the largest one.
        reference: a value that is marked by a dashed line, as 1 is for ratios.
    """
    bars = [bar for each in groups for bar in each.bars]
    most = most or max([*(bar.value.top for bar in bars), reference or 0.0]) or 1.0
    across = Scale(least, most, 0, WIDTH)
    parts: list[Markup] = []
    y = 0.0
    for each in groups:
        if each.name:
            y += GAP / 2 if parts else 0
            parts.append(text(0, y + TEXT, shortened(each.name, WIDTH), class_="strong"))
            y += LINE + 4
        for bar in each.bars:
            parts.append(_bar(bar, write(bar.value), y, across, reference))
            y += LINE + BAR + GAP
    summary = "; ".join(f"{bar.name}: {write(bar.value)}" for bar in bars)
    return Chart(title, summary, max(y - GAP + 2, 1), group(parts), note)


def _bar(bar: Bar, written: str, y: float, across: Scale, reference: float | None) -> Markup:
    """The bar with its texts, its top at `y`."""
    words = f"{written}  {bar.mark}" if bar.mark else written
    top, (start, end) = y + LINE, sorted((across(0), across(bar.value.value)))
    parts = [
        text(0, y + TEXT, shortened(bar.name, WIDTH - text_width(words) - SPACE)),
        text(WIDTH, y + TEXT, words, anchor="end"),
        element("rect", x=0, y=top, width=WIDTH, height=BAR, rx=2, class_="track"),
        element("rect", x=start, y=top, width=end - start, height=BAR, rx=2, class_=f"s{bar.series}"),
    ]
    if reference is not None:
        at = across(reference)
        parts.append(element("line", x1=at, x2=at, y1=top - 2, y2=top + BAR + 2, class_="reference"))
    return group([*parts, *_whisker(bar.value, top + BAR / 2, across)])


def _whisker(value: ChartValue, y: float, across: Scale) -> Sequence[Markup]:
    """The interval as a line with ends, above a halo that sets it off from the bar."""
    if value.low is None or value.high is None or value.high <= value.low:
        return []
    low, high = across(value.low), across(value.high)
    way = f"M{low:.1f} {y - CAP}v{2 * CAP}M{low:.1f} {y}H{high:.1f}M{high:.1f} {y - CAP}v{2 * CAP}"
    return [element("path", d=way, class_="halo"), element("path", d=way, class_="end")]
