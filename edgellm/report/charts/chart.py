"""A finished chart, and several of them as one SVG file.

    chart.svg()                                # inside an HTML page, which brings the colours
    sheet("smollm2", "4 threads", charts)      # a file of its own

All charts are 400 units wide: they stand side by side in a wide window, and are legible on a telephone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgellm.report.charts.palette import BACK, style
from edgellm.report.markup import Markup, element, joined, visible

WIDTH = 400
# The size of the text, and the distance of two of its lines.
TEXT, LINE = 13, 18
SMALL, SMALL_LINE = 11, 15
# The estimated width of a character in units of its size; wide ones are Chinese, Japanese and Korean.
NARROW_CHARACTER, WIDE_CHARACTER = 0.56, 1.0
# Around and between the charts of a sheet.
MARGIN = 24


@dataclass(frozen=True, slots=True)
class ChartValue:
    """A value, and the interval around it that is drawn as a whisker; None draws none."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def top(self) -> float:
        """The largest number that must have room."""
        return max(self.value, self.high or self.value)

    @property
    def bottom(self) -> float:
        """The smallest number that must have room."""
        return min(self.value, self.value if self.low is None else self.low)


@dataclass(frozen=True, slots=True)
class Scale:
    """Numbers from `low` to `high` as positions from `start` to `end`; what lies outside is at the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the position of a value."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)


def with_range(value: ChartValue, write: Callable[[float], str], unit: str = "") -> str:
    """A value as text, with its interval behind it: 83 % (71 to 90 %)."""
    if value.low is None or value.high is None or value.high <= value.low:
        return write(value.value) + unit
    return f"{write(value.value)}{unit} ({write(value.low)} to {write(value.high)}{unit})"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: `summary` says in words what it shows, for those who cannot see it; `note` explains how to read it."""

    title: str
    summary: str
    height: float
    body: Markup
    note: str = ""

    def svg(self) -> Markup:
        """The chart without its title, as an element of an HTML page."""
        name = element("title", f"{self.title}. {self.summary}")
        box = f"0 0 {WIDTH} {self.height:.0f}"
        return element("svg", name, self.body, viewBox=box, role="img", class_="chart")


def sheet(title: str, subtitle: str, charts: Sequence[Chart], *, is_for_screens: bool = True) -> str:
    """One SVG document: the charts in columns, each between its title and its note.

    `is_for_screens` adds the dark colours, for viewers that prefer them.
    """
    columns = min(len(charts), 2)
    heights = [MARGIN + 4.0 * LINE] * columns
    room = columns * (WIDTH + MARGIN) - MARGIN
    parts = [
        text(MARGIN, MARGIN + LINE, shortened(title, room, 18), class_="title"),
        text(MARGIN, MARGIN + 2.2 * LINE, shortened(subtitle, room, SMALL), class_="small"),
    ]
    for chart in charts:
        column = heights.index(min(heights))
        x, y = MARGIN + column * (WIDTH + MARGIN), heights[column]
        notes = _lines(chart.note, WIDTH, SMALL)
        below = 2 * LINE + chart.height
        whole = [
            text(0, TEXT, shortened(chart.title, WIDTH), class_="strong"),
            element("g", chart.body, transform=f"translate(0 {LINE + 6})"),
            *(text(0, below + n * SMALL_LINE, line, class_="small") for n, line in enumerate(notes)),
        ]
        parts.append(element("g", *whole, transform=f"translate({x} {y:.0f})"))
        heights[column] += below + len(notes) * SMALL_LINE + MARGIN
    width, height = MARGIN + columns * (WIDTH + MARGIN), max(heights)
    back = element("rect", width=width, height=height, class_=BACK)
    looks = element("style", Markup(style(with_dark=is_for_screens)))
    return element(
        "svg",
        *(element("title", title), looks, back, *parts),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height:.0f}",
        width=width,
        height=round(height),
        role="img",
    )


def text(x: float, y: float, words: str, *, class_: str | None = None, anchor: str | None = None) -> Markup:
    """A line of text whose baseline is at `y`; `anchor` is middle or end, None for its start."""
    return element("text", words, x=x, y=y, class_=class_, text_anchor=anchor)


def text_width(words: str, size: float = TEXT) -> float:
    """About how wide a text is."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in words)
    return size * (wide * WIDE_CHARACTER + (len(words) - wide) * NARROW_CHARACTER)


def shortened(words: str, room: float, size: float = TEXT) -> str:
    """A text on one line that fits into some room, cut with an ellipsis where it must be."""
    words = visible(" ".join(words[:1000].split()))
    if text_width(words, size) <= room:
        return words
    while words and text_width(words + "…", size) > room:
        words = words[:-1]
    return words.rstrip() + "…"


def _lines(words: str, room: float, size: float) -> Sequence[str]:
    """A text as lines that fit into some room."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size) > room:
            lines.append(shortened(word, room, size))
        else:
            lines[-1] = longer
    return lines if words else []


def group(parts: Sequence[Markup], **attributes: str) -> Markup:
    """Several parts as one."""
    return element("g", joined(parts), **attributes)
