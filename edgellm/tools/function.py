"""Plain Python functions as tools: the schema comes from the type hints, the descriptions from the docstring.

def weather(city: str, days: int = 1) -> str:
    '''Forecasts the weather.

    Args:
        city: the name of a city.
    '''

from_function(weather).parameters["required"]  ->  ["city"]
"""

from __future__ import annotations

import enum
import inspect
import json
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from edgellm.errors import UsageError
from edgellm.tools.tool import Risk, Tool, ToolResult

PYTHON = "python"
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", dict: "object"}
_ARGUMENT = re.compile(r"^\s*\*{0,2}(\w+)(?:\s*\([^)]*\))?:\s*(.+)$")
_SECTION = re.compile(r"^\s*(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?):\s*$", re.MULTILINE)


def from_function(function: Callable[..., Any], *, risk: Risk = Risk.NOTHING) -> Tool:
    """The tool that a function is. Whoever hands it over allows it: it runs without a question unless `risk` says so.

    Raises:
        UsageError: a parameter has no type hint, or one that has no JSON schema.
    """
    name = getattr(function, "__name__", "")
    try:
        hints = get_type_hints(function)
        parameters = inspect.signature(function).parameters
    except (TypeError, NameError, ValueError) as error:
        raise UsageError(f"{name or function!r} cannot be a tool", why=str(error)) from error
    about, described = _documented(inspect.getdoc(function) or "")
    properties, required = {}, []
    for each in parameters.values():
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD, each.POSITIONAL_ONLY):
            raise UsageError(f"{name} cannot be a tool", why=f"*{each.name} cannot be given by name")
        if each.name not in hints:
            raise UsageError(f"{name} cannot be a tool", why=f"{each.name} has no type hint", hint=f"{each.name}: str")
        about_it = {"description": described[each.name]} if each.name in described else {}
        properties[each.name] = {**_schema(hints[each.name], f"{name}: {each.name}"), **about_it}
        if each.default is each.empty:
            required.append(each.name)
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    readers = {key: hint for key, hint in hints.items() if isinstance(hint, type) and issubclass(hint, enum.Enum)}

    def call(arguments: Mapping[str, Any]) -> ToolResult:
        given = {key: readers[key](value) if key in readers else value for key, value in arguments.items()}
        return _result(function(**given))

    return Tool(name, about or name.replace("_", " "), schema, risk, call, PYTHON)


def _result(value: Any) -> ToolResult:
    """What a function returned, as text: JSON unless it is text already."""
    if isinstance(value, ToolResult):
        return value
    return ToolResult(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _schema(hint: Any, where: str) -> dict[str, Any]:
    """The JSON schema of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(each, where) for each in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (list, tuple, set, Sequence) or hint is list:
        return {"type": "array", **({"items": _schema(arguments[0], where)} if arguments else {})}
    if origin in (dict, Mapping):
        return {"type": "object", **({"additionalProperties": _schema(arguments[1], where)} if arguments else {})}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [each.value for each in hint]}
    if hint in _PLAIN:
        return {"type": _PLAIN[hint]}
    if hint is Any:
        return {}
    raise UsageError(f"{where} has a type without a JSON schema", why=str(hint)[:100], hint="str, int, list[str] ...")


def _documented(text: str) -> tuple[str, dict[str, str]]:
    """The first paragraph of a docstring, and what its `Args:` say of each parameter."""
    section, about = "", {}
    for line in text.splitlines():
        if found := _SECTION.match(line):
            section = found[1]
        elif section in ("Args", "Arguments", "Parameters") and (found := _ARGUMENT.match(line)):
            about[found[1]] = found[2].strip()
    first = _SECTION.split(text)[0].split("\n\n")[0]
    return " ".join(first.split()), about
