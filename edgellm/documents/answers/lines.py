"""The lines of a chunk: sentences, rows of a table, lines of code or of a list; and which of them may be quoted as one.

for start, end in line_spans(chunk.text): chunk.text[start:end]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from edgellm.documents.chunks import line_at
from edgellm.documents.collection import IndexedChunk

# Line breaks between two lines that are quoted as one; more of them stand where a sentence was left out.
MOST_BREAKS = 8
# Characters of a heading.
MOST_HEADING = 100
_END = re.compile(r"(?<=[.!?])[\"')\]]?\s+(?=[^\W_a-z])|(?<=[。！？；])|\n")


def line_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where each line of a text begins and ends, without the space around it."""
    at = 0
    for start, end in [*((found.start(), found.end()) for found in _END.finditer(text)), (len(text), len(text))]:
        piece = text[at:start]
        if piece.strip():
            first = at + len(piece) - len(piece.lstrip())
            yield first, first + len(piece.strip())
        at = end


def is_joined(chunk: IndexedChunk, lines: Sequence[tuple[int, int]], at: int) -> bool:
    """Whether a line follows the one before it in the document, too.

    A table that goes on from another chunk begins with a copy of its header. Between two elements something may have
    been left out, unless they are lines of a text; the name of a function, as a heading, has the line of the function.
    """
    (start, end), next_start, text = lines[at - 1], lines[at][0], chunk.text
    if at == 1 and is_row(text[start:end]):
        return False
    n_breaks = text.count("\n", end, next_start)
    if n_breaks < 2 or text[start:end].endswith((":", "：")):
        return True
    following = [line_at(text, chunk.line_marks, line[0]) for line in (lines[at - 1 : at + 2])]
    return n_breaks < MOST_BREAKS and len(set(following)) == len(following) and following[0] > 0


def is_row(line: str) -> bool:
    """Whether a line is a row of a table."""
    return " | " in line


def begins_block(text: str, lines: Sequence[tuple[int, int]], at: int) -> bool:
    """Whether a line is the first of a block, or of a table."""
    if at == 0 or is_row(text[slice(*lines[at])]) != is_row(text[slice(*lines[at - 1])]):
        return True
    return "\n\n" in text[lines[at - 1][1] : lines[at][0]]


def is_heading(text: str, lines: Sequence[tuple[int, int]], at: int) -> bool:
    """Whether a line is like a heading: alone, short, and no statement."""
    line = text[slice(*lines[at])]
    is_alone = begins_block(text, lines, at) and at + 1 < len(lines) and begins_block(text, lines, at + 1)
    return is_alone and len(line) <= MOST_HEADING and not is_row(line) and not line.endswith(tuple(".。!！,，:：;；"))


def heading_above(chunk: IndexedChunk, start: int) -> str:
    """The heading of a place in a chunk: the last line above it that is like one, else the chunk's own.

    Short sections share a chunk, which has the heading of the first.
    """
    lines = list(line_spans(chunk.text))
    above = [at for at, line in enumerate(lines) if line[1] <= start and is_heading(chunk.text, lines, at)]
    last = chunk.text[slice(*lines[above[-1]])] if above else ""
    return chunk.heading if chunk.heading.endswith(last) else last


def widened(chunk: IndexedChunk, start: int, end: int, most: int) -> tuple[int, int]:
    """A place in a chunk with the lines that follow it and then those before it, up to `most` characters in all."""
    lines = list(line_spans(chunk.text))
    inside = [at for at, line in enumerate(lines) if line[0] < end and start < line[1]]
    if not inside:
        return start, end
    first, last = inside[0], inside[-1]
    while last + 1 < len(lines) and lines[last + 1][1] - start <= most and is_joined(chunk, lines, last + 1):
        last += 1
        end = lines[last][1]
    while first and end - lines[first - 1][0] <= most and is_joined(chunk, lines, first):
        first -= 1
        start = lines[first][0]
    return start, end
