"""The tools of one chat or request: found by name, their arguments checked, allowed, run, and their results cleaned.

    toolbox = Toolbox([calculator, clock], Consent())
    toolbox.call("calculator", '{"expression": "12 * 7"}').text  ->  "12 * 7 = 84"

A call never raises: what goes wrong is a result with `error`, one sentence that a small model can act on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from edgellm.engine.grammar.validation import SchemaChecker, loads
from edgellm.errors import EdgellmError, UsageError
from edgellm.suggest import did_you_mean
from edgellm.tools.consent import Consent
from edgellm.tools.outside import cleaned
from edgellm.tools.tool import Tool, ToolResult

# Of the text of arguments, in characters.
MOST_ARGUMENTS = 1 << 16


class Toolbox:
    """Tools by name.

    Raises:
        UsageError: two have the same name.
    """

    def __init__(self, tools: Iterable[Tool] = (), consent: Consent | None = None) -> None:
        self._tools: dict[str, Tool] = {}
        self.consent = consent or Consent()
        for tool in tools:
            self.add(tool)

    def add(self, tool: Tool) -> None:
        """Add one more."""
        if tool.name in self._tools:
            raise UsageError(f"there are two tools {tool.name}", why="a model calls a tool by its name")
        self._tools[tool.name] = tool

    def __iter__(self) -> Iterator[Tool]:
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def get(self, name: str) -> Tool | None:
        """The tool of that name, if there is one."""
        return self._tools.get(name)

    @property
    def offerable(self) -> list[Tool]:
        """The tools that may run, or that the user can be asked about."""
        return [tool for tool in self if self.consent.may_offer(tool)]

    def call(self, name: str, arguments: str | Mapping[str, Any]) -> ToolResult:
        """Run a tool; `arguments` is a JSON object, or its text.

        Without a permission, with wrong arguments or where the tool fails, the result is an error. Control characters,
        terminal escapes and a chat template's own tokens are taken out of every result.
        """
        tool = self.get(name)
        if tool is None or not self.consent.may_offer(tool):
            guess = did_you_mean(name, [each.name for each in self.offerable])
            return _error(f"There is no tool {name!r:.80}." + (f" Did you mean {guess}?" if guess else ""))
        try:
            given = arguments if isinstance(arguments, Mapping) else parsed(arguments)
        except ValueError as error:
            return _error(f"The arguments of {name} are not a JSON object: {error}.")
        if fault := _checker(_text(tool.parameters)).fault(dict(given)):
            return _error(f"The arguments of {name} are wrong: {fault}.")
        if not self.consent.permits(tool, given):
            return _error(f"The user does not allow {name}. Answer without it.")
        try:
            result = tool.call(given)
        except EdgellmError as error:
            return _error(cleaned(f"{name} failed: {error.what}{f' ({error.why})' if error.why else ''}."))
        except Exception as error:  # a tool may be anybody's program
            return _error(cleaned(f"{name} failed: {type(error).__name__}: {error}."))
        if not result.error and not result.text.strip():
            return _error(f"{name} found nothing.")
        return replace(result, text=cleaned(result.text))


def parsed(arguments: str) -> dict[str, Any]:
    """The arguments that a text stands for; an empty one has none.

    Raises:
        ValueError: it is not a JSON object, or is too long.
    """
    if len(arguments) > MOST_ARGUMENTS:
        raise ValueError(f"they are longer than {MOST_ARGUMENTS:,} characters")
    try:
        value = loads(arguments) if arguments.strip() else {}
    except RecursionError:
        raise ValueError("they are nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("an object with the arguments by name is needed")
    return value


@lru_cache(maxsize=256)
def _checker(parameters: str) -> SchemaChecker:
    return SchemaChecker(json.loads(parameters))


def _text(parameters: Mapping[str, Any]) -> str:
    return json.dumps(dict(parameters), sort_keys=True)


def _error(text: str) -> ToolResult:
    return ToolResult(text, error=True)
