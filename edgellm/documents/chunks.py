"""Cuts the elements of a document into chunks that are indexed, found and quoted.

    for chunk in cut(read(path), count, size=512): ...

A chunk ends where an element ends, if that is possible. A longer element is cut between the rows of a table (its header
is repeated), lines of code, items of a list, sentences of a text. Chunks of one text overlap by about a tenth, at the
border of a sentence. A chunk stays within one page, so that it has one place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from edgellm.documents.elements import Element, Note, Part

SIZE = 512
OVERLAP = 0.1
# A section that is shorter than this part of a chunk shares one with the next section.
LEAST = 0.5
# A header that takes more of a chunk is not repeated: some tables have a hundred thousand columns.
MOST_HEADER = 0.5
CountTokens = Callable[[str], int]
_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]?\s+(?=[^\s\w]*[^\W_a-z])|(?<=[。！？；])|\n+")


@dataclass(frozen=True, slots=True)
class TextChunk:
    """A piece of a document. `heading` is the path to it, "Chapter > Section".

    `page` is 0 where there are no pages; `lines` are its first and last line, from 1, (0, 0) where lines mean nothing.
    `n_tokens` counts the text alone. Its first `n_repeated` characters are also the end of the chunk before.
    `line_marks` are places in the text, each with its line: (offset, line) in order, for `line_at`.
    """

    text: str
    heading: str
    page: int
    lines: tuple[int, int]
    n_tokens: int
    n_repeated: int = 0
    line_marks: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True)
class _Piece:
    """What is not cut further: a sentence, a row, a line of code, or a short element."""

    text: str
    line: int
    n_tokens: int
    joint: str  # what stands between it and the next piece
    repeated: str = ""  # the header of the table that it is a row of


@dataclass(slots=True)
class _Open:
    """The chunk that is being filled."""

    page: int = 0
    heading: str = ""
    pieces: list[_Piece] = field(default_factory=list)
    n_tokens: int = 0
    n_kept: int = 0  # pieces that the chunk before holds too
    n_new: int = 0


def cut(
    parts: Iterable[Part], count: CountTokens, *, size: int = SIZE, overlap: float = OVERLAP
) -> Iterator[TextChunk | Note]:
    """The chunks of a document, of at most `size` tokens, in order; notes are passed on."""
    path: dict[int, str] = {}
    cutter = _Cutter(count, size, int(size * overlap))
    for part in parts:
        if isinstance(part, Note):
            yield part
        elif part.kind == "heading":
            path = {level: title for level, title in path.items() if level < part.level}
            path[part.level] = part.text
            yield from cutter.section(" > ".join(path[level] for level in sorted(path)), part)
        else:
            yield from cutter.add(part)
    yield from cutter.finish()


class _Cutter:
    def __init__(self, count: CountTokens, size: int, overlap: int) -> None:
        self._count = count
        self._size = size
        self._overlap = overlap
        self._open = _Open()
        self._heading = ""

    def section(self, heading: str, element: Element) -> Iterator[TextChunk]:
        """A heading: a chunk that is long enough ends before it; in a short one it becomes a line of text."""
        self._heading = heading
        if self._open.n_tokens >= LEAST * self._size or element.page != self._open.page:
            yield from self._close(keep=False)
        if not self._open.n_new:
            self._open = _Open(element.page, heading)
        self._put(_Piece(element.text, element.line, self._count(element.text), "\n\n"))

    def add(self, element: Element) -> Iterator[TextChunk]:
        """The pieces of an element, each in the open chunk if there is room, else in a new one."""
        if element.page != self._open.page:
            yield from self._close(keep=False)
            self._open = _Open(element.page, self._heading)
        pieces = list(self._pieces(element))
        n_tokens = sum(piece.n_tokens for piece in pieces)
        # A element that fits into one chunk is not divided.
        if n_tokens <= self._size < self._open.n_tokens + n_tokens:
            yield from self._close(keep=element.kind == "text")
        for piece in pieces:
            if self._open.n_new and self._open.n_tokens + piece.n_tokens > self._size:
                yield from self._close(keep=element.kind == "text")
                if piece.repeated:
                    self._put(_Piece(piece.repeated, 0, self._count(piece.repeated), "\n"))
            self._put(piece)
        if self._open.pieces:
            self._open.pieces[-1].joint = "\n\n"

    def finish(self) -> Iterator[TextChunk]:
        """The last chunk."""
        yield from self._close(keep=False)

    def _put(self, piece: _Piece) -> None:
        if not self._open.pieces and not self._open.heading:
            self._open.heading = self._heading
        self._open.pieces.append(piece)
        self._open.n_tokens += piece.n_tokens
        self._open.n_new += 1

    def _close(self, *, keep: bool) -> Iterator[TextChunk]:
        chunk, self._open = self._open, _Open(self._open.page, self._heading)
        if chunk.n_new:
            yield _made(chunk)
            if keep:
                self._keep_end(chunk)

    def _keep_end(self, chunk: _Open) -> None:
        """The last sentences of a chunk begin the next one."""
        for piece in reversed(chunk.pieces):
            if self._open.n_tokens + piece.n_tokens > self._overlap:
                return
            self._open.pieces.insert(0, piece)
            self._open.n_tokens += piece.n_tokens
            self._open.n_kept += 1

    def _pieces(self, element: Element) -> Iterator[_Piece]:
        n_tokens = self._count(element.text)
        if n_tokens <= self._overlap and element.kind != "table":
            yield _Piece(element.text, element.line, n_tokens, "\n\n")
            return
        header = element.text.partition("\n")[0] if element.kind == "table" and element.has_header else ""
        if self._count(header) > MOST_HEADER * self._size:
            header = ""
        for offset, text in _divided(element):
            line = element.line and element.line + element.text.count("\n", 0, offset)
            joint = "\n" if element.kind != "text" or element.text.startswith("\n", offset + len(text)) else " "
            for each in self._bounded(text):
                yield _Piece(each, line, self._count(each), joint, header if offset else "")

    def _bounded(self, text: str) -> Iterator[str]:
        """A text in pieces that fit: what has no sentences is cut at spaces, or anywhere."""
        if self._count(text) <= self._size:
            yield text
            return
        middle = len(text) // 2
        space = text.rfind(" ", 0, middle)
        at = space if space > middle // 2 else middle
        yield from self._bounded(text[:at])
        yield from self._bounded(text[at:].lstrip())


def _divided(element: Element) -> Iterator[tuple[int, str]]:
    """The smallest pieces that make sense, each with its offset in the element."""
    if element.kind != "text":
        at = 0
        for line in element.text.split("\n"):
            if line.strip():
                yield at, line
            at += len(line) + 1
        return
    at = 0
    for found in _SENTENCE.finditer(element.text):
        if element.text[at : found.start()].strip():
            yield at, element.text[at : found.start()]
        at = found.end()
    if element.text[at:].strip():
        yield at, element.text[at:]


def _made(chunk: _Open) -> TextChunk:
    texts = [piece.text + piece.joint for piece in chunk.pieces]
    text = "".join(texts).rstrip("\n ")
    numbered = [piece for piece in chunk.pieces if piece.line]
    first = min((piece.line for piece in numbered), default=0)
    last = max((piece.line + piece.text.count("\n") for piece in numbered), default=0)
    n_repeated = sum(map(len, texts[: chunk.n_kept]))
    starts = [0, *accumulate(map(len, texts))]
    marks = [(at, piece.line) for at, piece in zip(starts, chunk.pieces, strict=False) if piece.line]
    # What follows from the mark before says nothing.
    needed = [mark for n, mark in enumerate(marks) if n == 0 or line_at(text, marks[:n], mark[0]) != mark[1]]
    return TextChunk(text, chunk.heading, chunk.page, (first, last), chunk.n_tokens, n_repeated, tuple(needed))


def line_at(text: str, marks: Sequence[tuple[int, int]], offset: int) -> int:
    """The line of the document at a place in a chunk's text; 0 where lines mean nothing."""
    before = [mark for mark in marks if mark[0] <= offset]
    if not before:
        return 0
    at, line = before[-1]
    return line + text.count("\n", at, offset)
