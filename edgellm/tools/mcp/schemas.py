"""Checks what an MCP server says of its tools, before any of it reaches a model.

    tool = checked("read_file", "Read a file.", {"type": "object", ...})

A schema is refused, and its tool left out, if it is huge, deep, refers to other documents or in circles, or is no JSON
schema; `Unfit` says which.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from edgellm.engine.grammar.validation import SchemaChecker
from edgellm.errors import UsageError

MOST_SCHEMA_BYTES = 64 << 10
MOST_DEPTH = 24
# A small model reads all of it before each answer.
MOST_DESCRIPTION = 2000
MOST_NAME = 128


class Unfit(Exception):
    """A tool cannot be offered; the text says why."""


def fit_schema(schema: Any) -> dict[str, Any]:
    """The schema of a tool's arguments, if it can be used.

    Raises:
        Unfit: it cannot.
    """
    if not isinstance(schema, dict):
        raise Unfit("its schema is no object")
    if _depth(schema) > MOST_DEPTH:
        raise Unfit(f"its schema is nested more than {MOST_DEPTH} deep")
    n_bytes = len(json.dumps(schema).encode())
    if n_bytes > MOST_SCHEMA_BYTES:
        raise Unfit(f"its schema has {n_bytes:,} bytes, and {MOST_SCHEMA_BYTES:,} are the most")
    whole: dict[str, Any] = {"type": "object", **schema}
    if whole["type"] != "object":
        raise Unfit(f"its schema is of type {str(whole['type'])[:40]!r}, not object")
    try:
        checker = SchemaChecker(whole)
        for reference in _references(whole):
            checker.target(reference)
    except UsageError as error:
        raise Unfit(f"{error.what}: {error.why}"[:300]) from error
    return whole


def fit_name(name: str) -> str:
    """The name of a tool as its server has it; `Unfit` for one that nobody can write."""
    if not name or len(name) > MOST_NAME or not name.isprintable():
        raise Unfit("its name is empty, too long or not printable")
    return name


def fit_description(text: str | None) -> str:
    """What a tool does, without control characters, and shortened where it would fill a small model's context."""
    plain = "".join(each if each.isprintable() else " " for each in text or "")
    plain = re.sub(r" {2,}", " ", plain).strip()
    return plain if len(plain) <= MOST_DESCRIPTION else f"{plain[:MOST_DESCRIPTION]}…"


def _depth(value: Any) -> int:
    """How deep values are nested; without recursion, because it may be deeper than Python can go."""
    deepest, waiting = 0, [(value, 1)]
    while waiting and deepest <= MOST_DEPTH:
        each, depth = waiting.pop()
        deepest = max(deepest, depth)
        inner = each.values() if isinstance(each, Mapping) else each if isinstance(each, list) else ()
        waiting += [(one, depth + 1) for one in inner]
    return deepest


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            if name in ("$ref", "$dynamicRef") and isinstance(each, str):
                yield each
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)
