"""The kind `json`: the answer is JSON, matches a schema, and has these values.

JsonChecker(values={"age": 36}).check(GivenAnswer('{"age": 36}')).score  ->  1.0
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, field_validator

from edgellm.engine.grammar.validation import SchemaChecker, loads
from edgellm.errors import UsageError
from edgellm.evaluation.checkers.base import MOST_TEXT, CheckerModel, right, wrong
from edgellm.evaluation.verdict import GivenAnswer, Verdict

_FENCE = re.compile(r"```[ \t]*(?:json[c5]?)?[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL | re.IGNORECASE)
_STEP = re.compile(r"[^.\[\]]+|\[\d{1,6}\]")
# Beginnings of values that are tried in a text around JSON.
MOST_STARTS = 50


class JsonChecker(CheckerModel):
    """Whether the answer is JSON that matches `schema` and has exactly these `values` at their paths ("a.b[0]").

    The answer must be nothing but JSON. A `lenient` check also accepts it in a code fence or with text around.
    """

    schema_: Annotated[dict[str, Any] | bool, Field(alias="schema")] = True
    values: dict[str, Any] = Field(default_factory=dict, max_length=100)
    lenient: bool = False

    @field_validator("schema_")
    @classmethod
    def _is_schema(cls, schema: Any) -> Any:
        try:
            SchemaChecker(schema)
        except UsageError as error:
            raise ValueError(f"{error.what}: {error.why}") from None
        return schema

    @cached_property
    def _checker(self) -> SchemaChecker:
        return SchemaChecker(self.schema_)

    def check(self, answer: GivenAnswer) -> Verdict:
        """Read the JSON and compare it."""
        text = answer.text.strip()
        if len(text) > MOST_TEXT:
            return wrong("it is too long to be read", text[:100])
        try:
            value = _lenient(text) if self.lenient else loads(text)
        except (ValueError, RecursionError) as error:
            hint = ", but has JSON in it" if not self.lenient and _has_json(text) else ""
            return wrong(f"it is not JSON{hint}: {error}", text)
        if fault := self._checker.fault(value):
            return wrong(fault, text)
        for path, expected in self.values.items():
            if fault := _difference(value, path, expected):
                return wrong(fault, text)
        return right(text)


def _lenient(text: str) -> Any:
    """The JSON of the last code fence that has any, else the largest value in the text; ValueError for none."""
    for inside in reversed(_FENCE.findall(text)):
        try:
            return loads(inside)
        except (ValueError, RecursionError):
            continue
    try:
        return loads(text)
    except (ValueError, RecursionError):
        found = _inside(text)
    if found is None:
        raise ValueError("there is no object or array")
    return found[0]


def _inside(text: str) -> tuple[Any] | None:
    """The longest object or array that stands in a text."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    best, length, at = None, 0, 0
    for _ in range(MOST_STARTS):
        start = re.compile(r"[{\[]").search(text, at)
        if start is None:
            break
        try:
            value, at = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            at = start.end()
            continue
        if at - start.start() > length:
            best, length = (value,), at - start.start()
    return best


def _has_json(text: str) -> bool:
    try:
        _lenient(text)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _difference(value: Any, path: str, expected: Any) -> str | None:
    """How a value at a path differs from the expected one; None if they are equal."""
    for step in _STEP.findall(path):
        key = int(step[1:-1]) if step.startswith("[") else step
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return f"there is no {path}"
    if _equal(value, expected):
        return None
    return f"{path} is {_short(value)}, {_short(expected)} is right"


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:100]


def _equal(value: Any, expected: Any) -> bool:
    """Equality of JSON: true is not 1, but 1.0 is."""
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(_equal, value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(_equal(value[key], expected[key]) for key in value)
    return bool(value == expected)
