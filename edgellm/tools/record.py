"""A call as it is kept with an answer: in a chat, in the output of a verb, in a file.

record = CallRecord.of(returned)
record.line                 ->  "calculator(expression=17 * 23)"
calls_from(calls_text([record]))  ->  [record]
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgellm.run.events import Returned, ToolSource

# Of a result in the chats, in characters: the sources say where the rest is.
MOST_KEPT = 20_000
# Of one argument on a line.
MOST_SHOWN = 80


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A call and what came back. `arguments` are JSON values by name; `text` is the result as the model saw it.

    With `error` the text says what went wrong; `notes` say what was cut or left out. `seconds` is how long it took.
    """

    name: str
    arguments: dict[str, Any]
    text: str
    error: bool
    sources: tuple[ToolSource, ...]
    notes: tuple[str, ...]
    seconds: float

    @classmethod
    def of(cls, returned: Returned) -> CallRecord:
        """The record of what a tool returned."""
        try:
            arguments = json.loads(returned.arguments or "{}")
        except (ValueError, RecursionError):
            arguments = {"": returned.arguments}
        return cls(
            returned.name, arguments, returned.text[:MOST_KEPT], returned.error, returned.sources, returned.notes,
            round(returned.seconds, 3),
        )  # fmt: skip

    @property
    def line(self) -> str:
        """The call on one line, as people read it."""
        return call_line(self.name, self.arguments)


def call_line(name: str, arguments: dict[str, Any]) -> str:
    """A call on one line; long arguments are cut."""
    shown = (f"{key}={_short(value)}" if key else _short(value) for key, value in arguments.items())
    return f"{name}({', '.join(shown)})"


def calls_text(calls: Sequence[CallRecord]) -> str:
    """Records as text; empty for none."""
    return json.dumps([asdict(each) for each in calls], ensure_ascii=False) if calls else ""


def calls_from(text: str) -> list[CallRecord]:
    """The records in such a text; none where it cannot be read."""
    with contextlib.suppress(ValueError, TypeError, LookupError, RecursionError):
        return [call_from(each) for each in json.loads(text)] if text else []
    return []


def call_from(fields: dict[str, Any]) -> CallRecord:
    """One record from its fields."""
    sources = tuple(ToolSource(**each) for each in fields["sources"])
    return CallRecord(**{**fields, "sources": sources, "notes": tuple(fields["notes"])})


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"
