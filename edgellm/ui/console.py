"""Where output goes: data to stdout, everything else to stderr, as text for people.

print_table(("NAME", "SIZE"), [("smollm2", "98.4 MB")], right=(1,))
note("next: edgellm chat smollm2")
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgellm.errors import EdgellmError

_WORD = re.compile(r"\s*\S+")
# C0 and C1 control characters but for newline and tab: what could move the cursor, retitle the window or worse.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Off a terminal there is no edge to wrap or cut at.
UNBOUNDED = 10_000
GAP = 2
# The least width of a last column that wraps; a narrower one makes each row a block of lines.
LEAST_COLUMN = 16
# How far the second line of a wrapped note is indented.
HANGING = 2


class _Console(Console):
    """rich's console, but a closed pipe is the caller's to handle."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def stdout() -> Console:
    """The console for data."""
    return _Console(highlight=False, soft_wrap=True, width=None if is_terminal(sys.stdout) else UNBOUNDED)


# The console that shows a bar: what it prints goes above the bar, what another one prints goes into it.
_with_bar: Console | None = None


def stderr() -> Console:
    """The console for everything else."""
    if _with_bar is not None:
        return _with_bar
    width = None if is_terminal(sys.stderr) else UNBOUNDED
    return _Console(stderr=True, highlight=False, soft_wrap=True, width=width)


@contextmanager
def with_bar(console: Console) -> Iterator[None]:
    """While this console shows a bar, lines for people are printed by it."""
    global _with_bar
    before, _with_bar = _with_bar, console
    try:
        yield
    finally:
        _with_bar = before


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that understands cursor movement."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """Text from a model or a file without the characters that would drive the terminal."""
    return CONTROL.sub("", text)


def print_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    spare: Sequence[str] = (),
    cut: bool = False,
) -> None:
    """Print a plain table without lines; where it is too wide all the same, each row becomes a block of lines.

    Args:
        right: columns that are aligned to the right.
        spare: columns that a narrow terminal does without, in this order; a note names those that are left out.
        cut: a last column that is too wide is cut, so that every row stays one line.
    """
    print_groups(headers, [("", rows)], right=right, spare=spare, cut=cut)


def print_groups(
    headers: Sequence[str],
    groups: Sequence[tuple[str, Sequence[Sequence[str]]]],
    *,
    right: Sequence[int] = (),
    spare: Sequence[str] = (),
    cut: bool = False,
) -> None:
    """Print tables below their titles, all with the same columns; the rest is as in `print_table`."""
    console = stdout()
    tables = [(title, [[printable(cell) for cell in row] for row in rows]) for title, rows in groups]
    cells = [row for _, rows in tables for row in rows]
    widths = [max([cell_len(header), *(cell_len(row[n]) for row in cells)]) for n, header in enumerate(headers)]
    shown = _columns(headers, widths, console.width, spare, cut)
    room = console.width - sum(widths[n] + GAP for n in shown[:-1])
    for number, (title, rows) in enumerate(tables):
        if title:
            print_line(("\n" if number else "") + title)
        if room < min(LEAST_COLUMN, widths[shown[-1]]):
            _print_blocks(console, headers, rows, shown)
        else:
            _print_grid(console, headers, rows, right, {n: widths[n] for n in shown}, room if cut else None)
    if left_out := [header for n, header in enumerate(headers) if n not in shown]:
        note(f"left out here: {', '.join(left_out)}; a wider window or --json has more")


def _columns(
    headers: Sequence[str], widths: Sequence[int], room: int, spare: Sequence[str], cut: bool
) -> Sequence[int]:
    """The columns to show, fewer of the `spare` ones the less room there is."""
    shown = list(range(len(headers)))
    for name in spare:
        last = min(LEAST_COLUMN, widths[shown[-1]]) if cut else widths[shown[-1]]
        if sum(widths[n] + GAP for n in shown[:-1]) + last <= room:
            break
        if name in headers:
            shown.remove(headers.index(name))
    return shown


def _print_grid(
    console: Console,
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int],
    shown: Mapping[int, int],
    cut: int | None,
) -> None:
    """Print a table of the columns `shown`, with their widths. The last one wraps, or is cut to so many cells."""
    *others, last = shown
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="bold", pad_edge=False)
    for n in shown:
        least = shown[n] if n != last else None
        table.add_column(headers[n], justify="right" if n in right else "left", no_wrap=n != last, min_width=least)
    for row in rows:
        text = Text(row[last])
        if cut is not None:
            text.truncate(cut, overflow="ellipsis")
        table.add_row(*(Text(row[n]) for n in others), text)
    console.print(table, soft_wrap=False)


def _print_blocks(
    console: Console, headers: Sequence[str], rows: Sequence[Sequence[str]], shown: Sequence[int]
) -> None:
    """Print each row as a line with its first cell and a line for each other cell that is not empty."""
    first, *others = shown
    width = max(cell_len(headers[n]) for n in shown)
    for row in rows:
        console.print(Text(folded(row[first], console.width), style="bold"))
        for n in others:
            if row[n]:
                _print_labelled(console, f"  {headers[n]:<{width}}  ", row[n])


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Names and values, one a line; a long value goes on below itself."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        _print_labelled(stdout(), f"{name:<{width}}  ", printable(value))


def _print_labelled(console: Console, label: str, value: str, style: str = "bold") -> None:
    indent = len(label) if len(label) <= console.width // 3 else HANGING
    console.print(Text.assemble((label, style), folded(value, console.width, indent=indent, begun=len(label))))


def folded(text: str, width: int, *, indent: int = HANGING, begun: int = 0) -> str:
    """A text that breaks between words, with its later lines indented. A word longer than a line stays whole.

    Args:
        width: cells of a line; `UNBOUNDED` leaves the text as it is.
        begun: cells that the first line has already.
    """
    if width >= UNBOUNDED:
        return text
    first, *others = text.split("\n")
    return "\n".join(
        [_fold_line(first, width, indent, begun), *(_fold_line(line, width, indent, 0) for line in others)]
    )


def _fold_line(line: str, width: int, indent: int, column: int) -> str:
    pieces = []
    for piece in _WORD.findall(line.expandtabs()):
        if column > indent and column + cell_len(piece) > width:
            pieces.append("\n" + " " * indent)
            piece, column = piece.lstrip(), indent
        pieces.append(piece)
        column += cell_len(piece)
    return "".join(pieces)


def print_line(text: str, *, indent: int = HANGING) -> None:
    """A line of data; where it wraps, it goes on with so many spaces before it."""
    console = stdout()
    console.print(Text(folded(printable(text), console.width, indent=indent)))


def print_raw(text: str) -> None:
    """A text as it is; on a terminal without what would drive it."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)


def note(text: str) -> None:
    """A line for people, on stderr."""
    console = stderr()
    console.print(Text(folded(text, console.width), style="dim"))


def note_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Names and values for people, one a line, on stderr."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        _print_labelled(stderr(), f"{name:<{width}}  ", printable(value), style="dim")


def print_check(name: str, detail: str, *, ok: bool, fix: str, needed: bool = True) -> None:
    """Print a finding of `doctor`, with the command that mends it if it failed; "warn" for what is not needed."""
    console = stdout()
    failed = ("FAIL", "bold red") if needed else ("warn", "yellow")
    mark, label = ("ok  ", "green") if ok else failed, f"  {name:<9} "
    begun = len(mark[0]) + len(label)
    line = Text.assemble(mark, label, folded(printable(detail), console.width, indent=begun, begun=begun))
    if fix:
        line.append("\n      try: ").append(folded(fix, console.width, indent=11, begun=11), style="bold")
    console.print(line)


def print_error(error: EdgellmError) -> None:
    """Print what happened, why, and what to type next, on stderr, so that stdout stays data."""
    console = stderr()
    what = folded(printable(error.what), console.width, begun=len("error: "))
    lines = Text.assemble(("error: ", "bold red"), what)
    if error.why:
        lines.append("\n  " + folded(printable(error.why), console.width, begun=2))
    if error.hint:
        hint = folded(printable(error.hint), console.width, indent=len("  try: "), begun=len("  try: "))
        lines.append("\n  try: ").append(hint, style="bold")
    console.print(lines)
