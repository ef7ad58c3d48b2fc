"""Plain text: paragraphs between blank lines, under the headings that manual pages and numbered sections have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from edgellm.documents.elements import Element

# A paragraph without end (a log) is cut here.
MOST_LINES = 40
# CAPITALS that begin a line, as in manual pages; "3.2 Title"; 第三章, 第十条.
_HEADING = re.compile(
    r"(?P<capitals>[A-Z][A-Z0-9 ,/&()'-]{2,60})$"
    r"|(?P<number>\d{1,2}(?:\.\d{1,2}){0,3}\.?)\s+[^\W\d_].{1,70}[^.;:,。；：，]$"
    r"|(?P<chinese>第\s*[一二三四五六七八九十百\d]{1,4}\s*[章节条部分篇]+)(?:\s|$|[^\w。，；]|.{0,30}$)"
)
_UNDERLINE = re.compile(r"(={3,}|-{3,}|~{3,})\s*$")


def read(lines: Iterable[str]) -> Iterator[Element]:
    """The elements of a text, line by line, in constant memory."""
    paragraph: list[str] = []
    begins = 1
    for number, line in enumerate(lines, 1):
        line = line.rstrip()
        if _UNDERLINE.match(line) and len(paragraph) == 1:
            yield Element("heading", paragraph.pop().strip(), level=1 if line[0] == "=" else 2, line=begins)
            continue
        if (not paragraph and (level := heading_level(line))) or not line.strip() or len(paragraph) >= MOST_LINES:
            if paragraph:
                yield Element("text", "\n".join(paragraph), line=begins)
                paragraph = []
            if line.strip() and (level := heading_level(line)):
                yield Element("heading", line.strip(), level=level, line=number)
                continue
        if line.strip():
            if not paragraph:
                begins = number
            paragraph.append(line)
    if paragraph:
        yield Element("text", "\n".join(paragraph), line=begins)


def heading_level(line: str) -> int:
    """The level of a line that is a heading by its form, 0 if it is none."""
    found = _HEADING.match(line)
    if found is None:
        return 0
    if found["number"]:
        return 1 + found["number"].rstrip(".").count(".")
    return 1
