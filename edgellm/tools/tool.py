"""What a tool is: a name, a JSON schema of its arguments, a function, and what it may touch.

    clock = Tool("clock", "The date and time now.", {"type": "object", "properties": {}}, Risk.NOTHING, now)
    clock.call({})  ->  ToolResult("2026-11-03 14:05")

A tool's function takes arguments that match the schema. It returns a result, or raises an `EdgellmError` whose text
goes to the model as one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edgellm.errors import UsageError
from edgellm.run.events import ToolSource

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
# Where a tool comes from, unless it is an MCP server ("mcp:NAME").
OWN = "edgellm"


class Risk(Enum):
    """What a tool may touch. Only one that reads nothing runs without the user's permission."""

    NOTHING = "reads nothing"
    HERE = "reads here"
    NETWORK = "reads the network"
    ACTS = "acts"


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool found. With `error` the text is one plain sentence about what went wrong, for the model.

    A tool whose result is a value names its spellings in `values`; the answer then has to state one of them.
    """

    text: str
    sources: tuple[ToolSource, ...] = ()
    error: bool = False
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool; `parameters` is the JSON schema of an object, `source` is "edgellm", "python" or "mcp:NAME".

    `examples` are questions with their arguments, and `signs` is a pattern of questions that it surely fits. Models
    whose templates know no tools need them: by these edgellm chooses the tool, and shows how it is called.

    Raises:
        UsageError: the name is none, or the schema is not that of an object.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    risk: Risk
    call: Callable[[Mapping[str, Any]], ToolResult] = field(compare=False, repr=False)
    source: str = OWN
    examples: tuple[tuple[str, Mapping[str, Any]], ...] = field(default=(), compare=False, repr=False)
    signs: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise UsageError(f"{self.name!r:.80} is no name of a tool", why="letters, digits, _ and -, at most 64")
        if self.parameters.get("type", "object") != "object":
            raise UsageError(f"the arguments of {self.name} are no object", why="a tool takes arguments by name")

    @property
    def as_function(self) -> dict[str, Any]:
        """It as chat templates and OpenAI's requests have it."""
        parameters = {"properties": {}, **self.parameters, "type": "object"}
        about = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": about}
