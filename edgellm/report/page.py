"""A report as data, and the HTML file that shows it.

    page = ReportPage("Speed of smollm2", "AMD EPYC", [ReportSection("speed", "Speed", charts=charts)], facts)
    html_file(page)

The file loads nothing: styles and script are in it, and its policy forbids the network. Without the script everything
can be read; the script only adds filters.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.report.charts.chart import Chart
from edgellm.report.charts.palette import style
from edgellm.report.markup import Markup, element, joined
from edgellm.version import __version__

FOLDER = Path(__file__).parent
# A table with more rows scrolls by itself.
MOST_ROWS = 30
# A name with its value: ("engine", "0.3.36 e4687ea5483e").
Fact = tuple[str, str]


@dataclass(frozen=True, slots=True)
class DataTable:
    """A table: texts by row; `right` are the columns of numbers."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A part of a report under a heading. `anchor` is its id in the page, `more` is markup that stands last."""

    anchor: str
    title: str
    text: str = ""
    charts: Sequence[Chart] = ()
    tables: Sequence[DataTable] = ()
    more: Markup | None = None


@dataclass(frozen=True, slots=True)
class ReportPage:
    """A whole report; `remarks` are what a reader must know before the figures."""

    title: str
    subtitle: str
    sections: Sequence[ReportSection]
    facts: Sequence[Fact]
    remarks: Sequence[str] = ()

    @property
    def charts(self) -> Sequence[Chart]:
        """All charts, in order."""
        return [chart for section in self.sections for chart in section.charts]


def html_file(page: ReportPage) -> str:
    """The report as one HTML document."""
    looks = Markup((FOLDER / "report.css").read_text(encoding="utf-8") + style(with_dark=True))
    script = Markup((FOLDER / "report.js").read_text(encoding="utf-8"))
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(looks)}; base-uri 'none'; form-action 'none'"
    )
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", page.title),
        element("style", looks),
    ]
    body = [
        _header(page),
        element("main", *map(_section, page.sections), _facts(page.facts)),
        element("script", script),
    ]
    whole = element("html", element("head", *head), element("body", *body), lang="en")
    return f"<!doctype html>\n{whole}\n"


def html_table(table: DataTable) -> Markup:
    """A table that scrolls sideways where the window is narrow."""
    sides = ["number" if n in table.right else None for n in range(len(table.headers))]
    head = [element("th", name, scope="col", class_=side) for name, side in zip(table.headers, sides, strict=True)]
    rows = [
        element("tr", *(element("td", cell, class_=side) for cell, side in zip(row, sides, strict=True)))
        for row in table.rows
    ]
    whole = element("table", element("thead", element("tr", *head)), element("tbody", *rows))
    is_tall = len(table.rows) > MOST_ROWS
    return element(
        "div",
        whole,
        class_="scroll tall" if is_tall else "scroll",
        tabindex="0",
        role="region",
        aria_label=" / ".join(table.headers),
    )


def _header(page: ReportPage) -> Markup:
    links = [
        element("a", section.title, href=f"#{section.anchor}") for section in page.sections if len(page.sections) > 1
    ]
    remarks = [element("p", remark, class_="remark") for remark in page.remarks]
    heading = [element("h1", page.title), element("p", page.subtitle, class_="soft"), *remarks]
    return element("header", *heading, element("nav", *links, aria_label="Sections") if links else Markup())


def _section(section: ReportSection) -> Markup:
    parts = [element("h2", section.title)]
    if section.text:
        parts.append(element("p", section.text, class_="soft"))
    if section.charts:
        parts.append(element("div", *map(_figure, section.charts), class_="charts"))
    parts += [html_table(table) for table in section.tables]
    return element("section", *parts, section.more or Markup(), id=section.anchor)


def _figure(chart: Chart) -> Markup:
    note = element("figcaption", chart.note) if chart.note else Markup()
    return element("figure", element("h3", chart.title), chart.svg(), note)


def _facts(facts: Sequence[Fact]) -> Markup:
    """What was measured where; the page ends with it."""
    pairs = [joined([element("dt", name), element("dd", value)]) for name, value in (*facts, ("edgellm", __version__))]
    return element("section", element("h2", "How it was measured"), element("dl", *pairs), id="how")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
