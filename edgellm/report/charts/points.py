"""A chart of points over a number or over names, joined to lines or not.

    series = [Series("smollm2", {1: ChartValue(42.6), 2: ChartValue(70.1)})]
    chart = point_chart("decode, over threads", series, "threads", "tok/s")

Each series has a shape as well as a colour, so that nothing depends on seeing colours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgellm.report.charts.chart import LINE, TEXT, WIDTH, Chart, ChartValue, Scale, group, shortened, text, text_width
from edgellm.report.charts.palette import LIGHT
from edgellm.report.markup import Markup, element

# Room of the plot: for the numbers on the left, above it, below it, on the right.
LEFT, ABOVE, BELOW, RIGHT = 46, 24, 40, 16
PLOT = 170
# The outlines of points: circle, square, triangle, diamond, triangle upside down, cross.
SHAPES = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z",
    "M-4 -4h8v8h-8z",
    "M0 -5.5L5 4H-5z",
    "M0 -5.5L5.5 0L0 5.5L-5.5 0z",
    "M0 5.5L5 -4H-5z",
    "M-1.5 -5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z",
)


@dataclass(frozen=True, slots=True)
class Series:
    """Values by their place on the horizontal axis."""

    name: str
    points: Mapping[float, ChartValue]


def point_chart(
    title: str,
    series: Sequence[Series],
    x_unit: str,
    y_unit: str,
    *,
    is_joined: bool = True,
    names: Mapping[float, str] | None = None,
    note: str = "",
) -> Chart:
    """Draw points; vertically from 0. `names` are written in place of the numbers of the horizontal axis."""
    places = sorted({x for each in series for x in each.points})
    legend = len(series) * LINE if len(series) > 1 else 0
    top, bottom = legend + ABOVE, legend + ABOVE + PLOT
    highest = max(value.top for each in series for value in each.points.values()) or 1.0
    levels = ticks(highest)
    across = _across(places, is_joined)
    up = Scale(0, levels[-1], bottom, top)
    shown = places if is_joined else ticks(places[-1] or 1.0)
    parts = [
        *(_legend(each.name, n) for n, each in enumerate(series) if legend),
        text(0, legend + TEXT, y_unit, class_="small"),
        *(_level(level, up(level)) for level in levels),
        *_places(shown, names or {}, across, bottom),
        text(WIDTH - RIGHT, bottom + 34, x_unit, class_="small", anchor="end"),
        *(_series(each, n, across, up, is_joined) for n, each in enumerate(series)),
    ]
    summary = "; ".join(_summary(each, x_unit, y_unit, names or {}) for each in series)
    return Chart(title, summary, bottom + BELOW, group(parts), note)


def ticks(highest: float) -> Sequence[float]:
    """Three to six round numbers from 0 to the first that is not below `highest`, which is above 0."""
    rough = highest / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    return [step * n for n in range(math.ceil(highest / step - 1e-9) + 1)]


def _across(places: Sequence[float], is_joined: bool) -> Scale:
    """Lines go from the first place to the last, with some room; points alone begin at 0."""
    if not is_joined:
        return Scale(0, ticks(places[-1] or 1.0)[-1], LEFT, WIDTH - RIGHT)
    return Scale(places[0], places[-1], LEFT + 14, WIDTH - RIGHT - 14)


def _legend(name: str, n: int) -> Markup:
    shape = element("path", d=_shape(n), class_=_colour(n), transform=f"translate(6 {n * LINE + 9})")
    return group([shape, text(18, n * LINE + TEXT, shortened(name, WIDTH - 18))])


def _level(level: float, y: float) -> Markup:
    rule = element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="rule")
    return group([rule, text(LEFT - 6, y + 4, f"{level:,g}", class_="small", anchor="end")])


def _places(places: Sequence[float], names: Mapping[float, str], across: Scale, bottom: float) -> Sequence[Markup]:
    """What stands below the axis, without what would overlap what is left of it."""
    found, free = [], 0.0
    for place in places:
        words = shortened(names.get(place, f"{place:,g}"), 110, 11)
        half = text_width(words, 11) / 2
        x = min(max(across(place), half), WIDTH - half)
        if x - half >= free:
            found.append(text(x, bottom + LINE, words, class_="small", anchor="middle"))
            free = x + half + 6
    return found


def _series(series: Series, n: int, across: Scale, up: Scale, is_joined: bool) -> Markup:
    points = [(across(x), value) for x, value in sorted(series.points.items())]
    parts = []
    if is_joined and len(points) > 1:
        way = "M" + "L".join(f"{x:.1f} {up(value.value):.1f}" for x, value in points)
        dashes = None if n < len(LIGHT) else "6 4"
        parts.append(element("path", d=way, class_=f"join {_colour(n)}", stroke_dasharray=dashes))
    for x, value in points:
        parts += _whisker(value, x, up, n)
        place = f"translate({x:.1f} {up(value.value):.1f})"
        parts.append(element("path", d=_shape(n), class_=_colour(n), transform=place))
    return group(parts)


def _whisker(value: ChartValue, x: float, up: Scale, n: int) -> Sequence[Markup]:
    if value.low is None or value.high is None or value.high <= value.low:
        return []
    low, high = up(max(0.0, value.low)), up(value.high)
    way = f"M{x - 4:.1f} {low:.1f}h8M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {high:.1f}h8"
    return [element("path", d=way, class_=f"join thin {_colour(n)}")]


def _summary(series: Series, x_unit: str, y_unit: str, names: Mapping[float, str]) -> str:
    points = sorted(series.points.items())
    return f"{series.name}: " + ", ".join(
        f"{value.value:,.3g} {y_unit} at {names.get(x, f'{x:,g} {x_unit}')}" for x, value in points
    )


def _colour(n: int) -> str:
    return f"s{n % len(LIGHT)}"


def _shape(n: int) -> str:
    """Shapes come round one later than colours, so that the seventh series differs from the first."""
    return SHAPES[(n + n // len(LIGHT)) % len(SHAPES)]
