"""Markdown: headings, fenced code, pipe tables, lists and paragraphs, each with its lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from edgellm.documents.elements import Element, Kind, row

_HEADING = re.compile(r" {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_RULE = re.compile(r"\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$")
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)])\s")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})\s*$")
MOST_LINES = 400
# Characters of a heading or a rule; patterns look at no longer lines.
MOST_HEADING = 1000


def read(lines: Iterable[str]) -> Iterator[Element]:
    """The elements of a text, line by line."""
    pending: list[str] = []
    kind: Kind = "text"
    begins, fence = 1, ""
    for number, line in enumerate(lines, 1):
        line = line.rstrip()
        is_short = len(line) <= MOST_HEADING
        opened = _FENCE.match(line)
        if fence:
            pending.append(line)
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
                yield _block("code", pending, begins)
                pending = []
            elif len(pending) >= MOST_LINES:
                yield _block("code", pending, begins)
                pending, begins = [], number + 1
            continue
        setext = _UNDERLINE.match(line) if kind == "text" and len(pending) == 1 else None
        if setext:
            yield Element("heading", pending.pop().strip(), level=1 if setext[1][0] == "=" else 2, line=begins)
            continue
        new = _kind(line, kind if pending else "text")
        if pending and (new != kind or opened or not line.strip() or len(pending) >= MOST_LINES):
            yield _block(kind, pending, begins)
            pending = []
        if opened:
            fence, kind, begins, pending = opened[1], "code", number, [line]
        elif heading := _HEADING.match(line) if is_short else None:
            yield Element("heading", heading[2], level=len(heading[1]), line=number)
        elif line.strip():
            if not pending:
                kind, begins = _kind(line, "text"), number
            pending.append(line)
    if pending:
        yield _block(kind, pending, begins)


def _kind(line: str, before: Kind) -> Kind:
    if line.lstrip().startswith("|"):
        return "table"
    if _ITEM.match(line) or (before == "list" and line.startswith((" ", "\t"))):
        return "list"
    return "text"


def _block(kind: Kind, lines: list[str], begins: int) -> Element:
    if kind != "table":
        return Element(kind, "\n".join(lines), line=begins)
    # The rule stays as an empty line, so that each row keeps the number of its line.
    rows = [
        "" if len(line) <= MOST_HEADING and _RULE.match(line) else row(line.strip().strip("|").split("|"))
        for line in lines
    ]
    return Element("table", "\n".join(rows), line=begins, has_header=len(rows) > 1 and not rows[1])
