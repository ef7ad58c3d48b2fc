"""What a reader makes of a document: elements of one form each, in reading order, and notes on what it could not read.

for part in read(path):
    match part:
        case Element(kind="heading", level=level): ...
        case Note(text): ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["heading", "text", "list", "table", "code"]
# Cells of one row are joined by this; a table has one row a line, the header first.
CELL = " | "


@dataclass(frozen=True, slots=True)
class Element:
    """A heading, paragraph, list, table or piece of code, as its text stands in the document.

    `level` is that of a heading, from 1. `page` counts from 1 and is 0 where there are no pages; slides count as pages.
    `line` is the number of its first line, from 1, and 0 where lines mean nothing; the text then keeps its line breaks.
    A table whose first row is not its header has `has_header` false.
    """

    kind: Kind
    text: str
    level: int = 0
    page: int = 0
    line: int = 0
    has_header: bool = True


@dataclass(frozen=True, slots=True)
class Note:
    """What could not be read in a document that was read otherwise: "page 8 is an image"."""

    text: str


Part = Element | Note


def row(cells: list[str]) -> str:
    """A row of a table as a line: white space inside cells becomes one space, empty cells at the end are left out."""
    return CELL.join(" ".join(cell.split()) for cell in cells).rstrip(CELL)
