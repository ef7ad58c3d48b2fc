"""Source code: an element for each definition at the left margin, under its name as a heading."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from edgellm.documents.elements import Element

MOST_LINES = 80
_DEFINITION = re.compile(
    r"(?:export |default |pub(?:\([a-z]+\))? |public |private |protected |static |abstract |async |final |inline )*"
    r"(?:def|class|function|func|fn|interface|struct|enum|trait|impl|module|type)\s+(\w+)"
    r"|(?:[\w:<>*&]+\s+)+\**(\w+)\s*\([^;]*$"
)


def read(lines: Iterable[str]) -> Iterator[Element]:
    """The elements of a program, line by line."""
    pending: list[str] = []
    begins = 1
    for number, line in enumerate(lines, 1):
        line = line.rstrip()
        found = _DEFINITION.match(line)
        if found or len(pending) >= MOST_LINES:
            kept = _n_leading(pending) if found else 0
            yield from _code(pending[: len(pending) - kept], begins)
            begins, pending = begins + len(pending) - kept, pending[len(pending) - kept :]
        if found:
            yield Element("heading", found[1] or found[2], level=1, line=number)
        if not pending:
            begins = number
        pending.append(line)
    yield from _code(pending, begins)


def _n_leading(lines: list[str]) -> int:
    """How many lines directly above a definition belong to it: comments and decorators."""
    leads = ("#", "@", "//", "/*", " *", "*", "template", "--")
    return next((n for n, line in enumerate(reversed(lines)) if not line.startswith(leads)), len(lines))


def _code(lines: list[str], begins: int) -> Iterator[Element]:
    while lines and not lines[0].strip():
        lines, begins = lines[1:], begins + 1
    if text := "\n".join(lines).rstrip():
        yield Element("code", text, line=begins)
