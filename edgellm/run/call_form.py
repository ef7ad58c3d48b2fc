"""How a model writes a tool call, read off its own chat template: what begins it, and the keys of its JSON object.

    form = call_form(ChatTemplate(source))
    form.marker, form.name_key, form.arguments_key  ->  "<tool_call>\\n", "name", "arguments"

A template shows a past call as the model was trained to write one. Where it is a JSON object with a name and the
arguments, a grammar can make the model write only valid calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from edgellm.errors import EdgellmError, UsageError
from edgellm.run.chat_template import ChatTemplate
from edgellm.run.structure import JSON_OBJECT, Structure, from_schema

_NAME, _VALUE = "edgellm_probe", "edgellm probe value"
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {"edgellm_key": {"type": "string"}}, "required": []},
    },
}
_ROOT = re.compile(r"^root ::= (.*)$", re.MULTILINE)
# Mistral's templates refuse ids of another length.
ID_LENGTH = 9


@dataclass(frozen=True, slots=True)
class CallForm:
    """A call is `marker` and a JSON object with `name_key` and `arguments_key`; the marker may be empty."""

    marker: str
    name_key: str = "name"
    arguments_key: str = "arguments"

    def structure(self, tools: Sequence[Mapping[str, Any]]) -> Structure:
        """The form of a call of one of these tools (in OpenAI's form): a grammar and its schema."""
        # References within a tool's schema begin at its own root, so that each one stands whole among the definitions.
        parts = {f"tool{n}": _arguments(tool["function"]) for n, tool in enumerate(tools)}
        calls = [
            self._call(tool["function"]["name"], {"$ref": f"#/$defs/{part}"})
            for tool, part in zip(tools, parts, strict=True)
        ]
        whole = calls[0] if len(calls) == 1 else {"anyOf": calls}
        placed = {part: _moved(schema, f"#/$defs/{part}") for part, schema in parts.items()}
        try:
            return from_schema(json.dumps({**whole, "$defs": placed}))
        except UsageError:  # too much together, or references that cannot be moved: the call is checked afterwards
            return from_schema(json.dumps({**whole, "$defs": dict.fromkeys(parts, json.loads(JSON_OBJECT))}))

    def grammar(self, tools: Sequence[Mapping[str, Any]]) -> str:
        """The grammar of a whole call, which begins with the marker."""
        marker = json.dumps(self.marker, ensure_ascii=False)
        return _ROOT.sub(lambda root: f"root ::= {marker} ({root[1]})", self.structure(tools).grammar, count=1)

    def _call(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        properties = {self.name_key: {"const": name}, self.arguments_key: arguments}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def read(self, text: str) -> tuple[str, dict[str, Any]] | None:
        """The name and the arguments of a call that was written by the grammar; None if it was cut off."""
        try:
            call = json.loads(text)
            return call[self.name_key], call[self.arguments_key]
        except (ValueError, LookupError, TypeError, RecursionError):
            return None


def call_form(template: ChatTemplate) -> CallForm | None:
    """The form in which a template shows calls; None if it shows none, or not as one JSON object."""
    asked: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
    function = {"name": _NAME, "arguments": {"edgellm_key": _VALUE}}
    call = {"id": "0" * ID_LENGTH, "type": "function", "function": function}
    called = [*asked, {"role": "assistant", "content": "", "tool_calls": [call]}]
    try:
        before = template.render(asked, tools=[_TOOL])
        after = template.render(called, tools=[_TOOL], add_generation_prompt=False)
    except EdgellmError:
        return None
    if _NAME not in before:
        return None  # it does not show its tools
    shared = next((n for n, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
    return _form_of(after[shared:])


def _form_of(text: str) -> CallForm | None:
    """The form of the call with which a text begins."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        call, _ = json.JSONDecoder().raw_decode(text[start:])
    except (ValueError, RecursionError):
        return None
    name_key = next((key for key, value in call.items() if value == _NAME), None)
    arguments_key = next((key for key, value in call.items() if isinstance(value, dict)), None)
    if name_key is None or arguments_key is None or call[arguments_key] != {"edgellm_key": _VALUE}:
        return None
    return CallForm(text[:start].lstrip(), name_key, arguments_key)


def _arguments(function: Mapping[str, Any]) -> Any:
    """The schema of a function's arguments; that of any object where no grammar can say it."""
    return json.loads(arguments_structure(json.dumps(function.get("parameters") or {})).schema or JSON_OBJECT)


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references to itself are right at another place of a document."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: f"{place}{value[1:]}" if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, place)
        for key, value in schema.items()
    }  # fmt: skip


@lru_cache(maxsize=256)
def arguments_structure(parameters: str) -> Structure:
    """The form of arguments by the text of their schema; any object where no grammar can say it.

    Then the schema is only checked after the call was written.
    """
    try:
        return from_schema(parameters)
    except UsageError:
        return from_schema(JSON_OBJECT)
