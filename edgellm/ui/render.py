"""The one way in which a verb shows its result: to people, or as JSON in an envelope.

    found = render(output, listed(here), _table)   # {"version": 1, "command": "list", "data": [...]} with --json
    render_error(error, command="list", as_json=True)

An envelope has `data` on stdout or `error` on stderr, never both. The keys of an object in `data` stand beside it as
well: `jq .text` and `jq .data.text` are the same. `version` grows when a key goes or changes its meaning; new keys
leave it as it is.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Any, TextIO, TypeVar

from edgellm.errors import EdgellmError
from edgellm.ui.console import print_error
from edgellm.ui.options import JsonOutput

VERSION = 1
Result = TypeVar("Result")


def render(output: JsonOutput, data: Result, people: Callable[[Result], object]) -> Result:
    """Print a result, as JSON if that was asked for, else by `people`; returns it."""
    if output.as_json:
        _print(envelope(output.command, data))
    else:
        people(data)
    return data


def render_line(output: JsonOutput, data: Result) -> Result:
    """Print one of several results as an envelope on a line of its own (JSON Lines); returns it."""
    _print(envelope(output.command, data), indent=None)
    sys.stdout.flush()
    return data


def render_error(error: EdgellmError, *, command: str | None, as_json: bool) -> None:
    """Print what happened, why, and what to type next, on stderr; `command` is None when no verb was recognised."""
    if not as_json:
        print_error(error)
        return
    described = {"code": error.code, "what": error.what, "why": error.why, "try": error.hint, "facts": error.facts}
    _print({"version": VERSION, "command": command, "error": to_json(described)}, sys.stderr)


def envelope(command: str, data: Any) -> dict[str, Any]:
    """A result with the version of its form and the command that it answers; an object's keys stand beside `data`."""
    plain = to_json(data)
    head = {"version": VERSION, "command": command, "data": plain}
    return head | {name: value for name, value in _keys(plain) if name not in {*head, "error"}}


def _keys(plain: Any) -> Iterable[tuple[str, Any]]:
    return plain.items() if isinstance(plain, dict) else ()


def to_json(value: Any) -> Any:
    """Plain JSON values: dataclasses with their public properties, models with what is set, paths as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: to_json(getattr(value, name)) for name in names_of(type(value))}
    if hasattr(value, "model_dump"):  # a recipe, or a part of one
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, float):
        # JSON has no word for infinity; nine digits tell every float32 from the next.
        return float(f"{value:.9g}") if math.isfinite(value) else None
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


def names_of(kind: type[Any]) -> list[str]:
    """The names under which a dataclass appears in JSON: its fields, then its public properties."""
    computed = [
        name
        for base in reversed(kind.__mro__)
        for name, item in vars(base).items()
        if isinstance(item, property) and not name.startswith("_")
    ]
    return list(dict.fromkeys([*(each.name for each in dataclasses.fields(kind)), *computed]))


def json_text(document: Any, encoding: str | None, indent: int | None = 2) -> str:
    """JSON that a stream of this encoding can carry; see `carried`."""
    return carried(json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False), encoding)


def carried(text: str, encoding: str | None) -> str:
    """JSON as a stream of an encoding can carry it: outside of Unicode, other characters than ASCII are escaped.

    Half of a surrogate pair, which no encoding has, becomes a question mark.
    """
    text = text.encode(errors="replace").decode()
    if (encoding or "").lower().startswith("utf"):
        return text
    return re.sub(r"[^\x00-\x7f]+", lambda found: json.dumps(found[0])[1:-1], text)


def _print(document: dict[str, Any], stream: TextIO | None = None, *, indent: int | None = 2) -> None:
    out = stream or sys.stdout
    out.write(json_text(document, out.encoding, indent) + "\n")
