"""Where output goes: data to stdout, everything else to stderr, as text or as JSON.

print_data(models, table)     # the table for people; with --json the data themselves
note("next: edgellm chat smollm2")
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgellm.errors import EdgellmError

# C0 and C1 control characters but for newline and tab: what could move the cursor, retitle the window or worse.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


# Off a terminal there is no edge to wrap or cut at.
UNBOUNDED = 10_000


class _Console(Console):
    """rich's console, but a closed pipe is the caller's to handle."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def stdout() -> Console:
    """The console for data."""
    return _Console(highlight=False, soft_wrap=True, width=None if is_terminal(sys.stdout) else UNBOUNDED)


def stderr() -> Console:
    """The console for everything else."""
    width = None if is_terminal(sys.stderr) else UNBOUNDED
    return _Console(stderr=True, highlight=False, soft_wrap=True, width=width)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that understands cursor movement."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """Text from a model or a file without the characters that would drive the terminal."""
    return CONTROL.sub("", text)


def to_json(value: Any) -> Any:
    """Dataclasses, with their properties, and paths as plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        computed = {
            name: getattr(value, name) for name, item in vars(type(value)).items() if isinstance(item, property)
        }
        return to_json({**fields, **computed})
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, float):
        # JSON has no word for infinity; nine digits tell every float32 from the next.
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def print_json(value: Any, stream: TextIO | None = None) -> None:
    """One JSON document."""
    print(json.dumps(to_json(value), indent=2, ensure_ascii=False), file=stream or sys.stdout)


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """A plain table without lines; columns in `right` are aligned to the right."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for index, header in enumerate(headers):
        last = index == len(headers) - 1
        table.add_column(header, justify="right" if index in right else "left", no_wrap=not last)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    stdout().print(table, soft_wrap=False)


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Names and values, one a line."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        stdout().print(Text.assemble((f"{name:<{width}}  ", "bold"), printable(value)))


def print_line(text: str) -> None:
    """A line of data."""
    stdout().print(Text(printable(text)))


def print_raw(text: str) -> None:
    """A text as it is; on a terminal without what would drive it."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)


def note(text: str) -> None:
    """A line for people, on stderr."""
    stderr().print(Text(text, style="dim"))


def print_error(error: EdgellmError, *, as_json: bool) -> None:
    """What happened, why, and what to type next; on stderr, so that stdout stays data."""
    if as_json:
        described = {"code": error.code, "what": error.what, "why": error.why, "try": error.hint, "facts": error.facts}
        print_json({"error": described}, sys.stderr)
        return
    lines = Text.assemble(("error: ", "bold red"), printable(error.what))
    if error.why:
        lines.append(f"\n  {printable(error.why)}")
    if error.hint:
        lines.append("\n  try: ").append(printable(error.hint), style="bold")
    stderr().print(lines)
