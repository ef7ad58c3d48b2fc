"""Checks against schemas: exact, in bounded time, in every dialect."""

import time
from typing import Any

import pytest

from edgellm.engine.grammar.validation import SchemaChecker, loads, search
from edgellm.errors import UsageError


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"multipleOf": 0.01}, [0.29, 19.99, 1e3], [0.295]),
        ({"pattern": r"^\p{L}+$"}, ["Éa"], ["a1"]),
        ({"pattern": r"^\d$"}, ["1"], ["٣", "1\n"]),
        ({"pattern": r"^(?<name>[\w&|~[-]+)\u{1F600}$"}, ["a&[😀"], ["é😀"]),
        ({"format": "date-time"}, ["2026-02-28T10:00:00Z", 5], ["2026-02-30T10:00:00Z", "today"]),
        ({"format": "duration"}, ["P1DT2H"], ["P", "1D"]),
        ({"format": "unknown"}, ["anything"], []),
        ({"items": [{"type": "string"}]}, [["a"]], [[1]]),
        ({"minimum": 0, "exclusiveMinimum": True}, [1], [0]),
        ({"dependencies": {"a": ["b"]}}, [{"a": 1, "b": 1}], [{"a": 1}]),
        ({"patternProperties": {"^a": {"type": "null"}}, "additionalProperties": False}, [{"ab": None}], [{"b": None}]),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "items": [True, False]}, [[1]], [[1, 2]]),
    ],
)
def test_values(schema: Any, good: list[Any], bad: list[Any]) -> None:
    checker = SchemaChecker(schema)
    assert [checker.fault(value) for value in good] == [None] * len(good)
    assert all(checker.fault(value) for value in bad)


def test_a_fault_says_where() -> None:
    checker = SchemaChecker({"properties": {"a": {"items": {"maximum": 3}}}})
    assert checker.fault({"a": [1, 5]}) == "5 is greater than the maximum of 3 at $.a[1]"


@pytest.mark.parametrize("pattern", [r"^(a|a|b?)*?(\w*\w*)*(\w+\s?)+$(?<!x)", r"^(\w+\s?)*(\w+)*-$"])
def test_a_pattern_that_backtracks_without_end_is_stopped(pattern: str) -> None:
    began = time.monotonic()
    text = "a" * 300 + "!"
    assert SchemaChecker({"pattern": pattern}).fault(text)
    named = {"patternProperties": {pattern: {}}, "additionalProperties": False}
    assert SchemaChecker(named).fault({text: 1})
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "", "{'a': 1}"])
def test_what_is_not_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|value|property name"):
        loads(text)


def test_a_pattern_that_cannot_be_read() -> None:
    with pytest.raises(UsageError, match="is invalid"):
        search("(", "a")
