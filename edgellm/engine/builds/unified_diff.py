"""Applies a unified diff to a tree of files, so that a build needs neither git nor patch.

    apply(Path("fix.patch").read_bytes(), tree)

It is as strict as `git apply`: every line of a hunk's context must be there. Only its place may differ, because patches
before it have moved lines. It changes files that exist; it makes, renames and deletes none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FILE = re.compile(rb"\+\+\+ (?:b/)?([^\t\n]+)")
HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")


class DoesNotApply(ValueError):
    """A diff does not fit the tree; `file` names where."""

    def __init__(self, file: str, why: str) -> None:
        super().__init__(why)
        self.file = file


@dataclass(slots=True)
class _Hunk:
    """A change: `old` lines, which the diff says to be at index `start`, become `new` ones."""

    start: int
    old: list[bytes] = field(default_factory=list)
    new: list[bytes] = field(default_factory=list)


def apply(diff: bytes, tree: Path) -> None:
    """Change the files below `tree` as a diff says; what stands before the first file's name is ignored.

    Raises:
        DoesNotApply: a file is missing or different, or the diff is cut off. Files before it are changed already.
    """
    for name, hunks in _files(diff.splitlines(keepends=True)):
        path = tree / name
        try:
            lines = path.read_bytes().splitlines(keepends=True)
        except OSError as error:
            raise DoesNotApply(name, f"{name}: {error.strerror}") from error
        path.write_bytes(b"".join(_changed(name, lines, hunks)))


def _files(lines: list[bytes]) -> Iterator[tuple[str, list[_Hunk]]]:
    """Yield each file that a diff names, with its hunks."""
    name, hunks, position = "", list[_Hunk](), 0
    while position < len(lines):
        if found := FILE.match(lines[position]):
            if hunks:
                yield name, hunks
            name, hunks = found[1].decode(errors="replace"), []
        elif name and (found := HUNK.match(lines[position])):
            hunk, position = _hunk(name, lines, position, found)
            hunks.append(hunk)
            continue
        position += 1
    if hunks:
        yield name, hunks


def _hunk(name: str, lines: list[bytes], position: int, head: re.Match[bytes]) -> tuple[_Hunk, int]:
    """Read the hunk whose head is at `position`; return it with the position after it."""
    n_old, n_new = (1 if count is None else int(count) for count in head.group(2, 3))
    first = int(head[1])
    # Of a hunk without old lines the head names the line before it.
    hunk = _Hunk(first if n_old == 0 else first - 1)
    position += 1
    while len(hunk.old) < n_old or len(hunk.new) < n_new:
        line = lines[position] if position < len(lines) else b""
        kind, text = line[:1], line[1:]
        if line == b"\n":  # an empty line of context, whose space an editor has taken
            kind, text = b" ", line
        if kind not in (b" ", b"-", b"+"):
            raise DoesNotApply(name, f"{name}: line {position + 1} of the patch is not part of a hunk")
        if kind != b"+":
            hunk.old.append(text)
        if kind != b"-":
            hunk.new.append(text)
        position += 1
        if position < len(lines) and lines[position].startswith(b"\\"):  # "\ No newline at end of file"
            for side, kinds in ((hunk.old, b" -"), (hunk.new, b" +")):
                if kind in kinds:
                    side[-1] = side[-1].removesuffix(b"\n")
            position += 1
    return hunk, position


def _changed(name: str, lines: list[bytes], hunks: list[_Hunk]) -> Iterator[bytes]:
    """Yield the lines of a file with its hunks applied."""
    done = moved = 0
    for hunk in hunks:
        place = _place(lines, hunk.old, hunk.start + moved, done)
        if place is None:
            raise DoesNotApply(name, f"{name}: the text around line {hunk.start + 1} is not what the patch expects")
        yield from lines[done:place]
        yield from hunk.new
        done, moved = place + len(hunk.old), place - hunk.start
    yield from lines[done:]


def _place(lines: list[bytes], old: list[bytes], expected: int, earliest: int) -> int | None:
    """Return the index nearest to `expected`, and not before `earliest`, at which the old lines stand."""
    last = len(lines) - len(old)
    nearest = sorted(range(earliest, last + 1), key=lambda index: abs(index - expected))
    return next((index for index in nearest if lines[index : index + len(old)] == old), None)
