"""Citations: what stands in a document, word for word, and where.

place(Citation(1, "manual.md", None, (4, 6), "Warranty", "Two years.", "/home/ada/manual.md"))

Chats and batches keep citations with their answers; nothing that finds them is imported for that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edgellm.documents.search import Passage

# Where the words of an answer come from; see `question.DocumentAnswer`.
Basis = Literal["draft", "quotation", "nearest", ""]


@dataclass(frozen=True, slots=True)
class Citation:
    """A verbatim quotation with its place; `number` is what the answer's sentences refer to."""

    number: int
    file: str
    page: int | None
    lines: tuple[int, int] | None
    heading: str
    quote: str
    path: str


def beginning(text: str, most: int) -> str:
    """A text on one line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def place(passage: Passage | Citation) -> str:
    """Where a passage stands: its file, page or lines, and heading."""
    parts = [passage.file]
    if passage.page:
        parts.append(f"page {passage.page}")
    elif passage.lines:
        first, last = passage.lines
        parts.append(f"line {first}" if first == last else f"lines {first}-{last}")
    if passage.heading:
        parts.append(passage.heading)
    return ", ".join(parts)
