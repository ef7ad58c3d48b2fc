"""Checks as data: what is refused and why, what combines, and that no answer breaks a checker."""

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgellm.errors import UsageError
from edgellm.evaluation.checkers import KINDS, MOST_DEPTH, checker
from edgellm.evaluation.verdict import GivenAnswer
from tests.evaluation.checkers.grade import right

CHECKS: list[dict[str, Any]] = [
    {"kind": "number", "value": 51}, {"kind": "number", "value": 90, "unit": "min"}, {"kind": "choice", "answer": "B"},
    {"kind": "contains", "all": ["x"], "any": ["y"], "none": ["z"]}, {"kind": "set", "values": ["a", "b"]},
    {"kind": "set", "values": [1, 2]}, {"kind": "keywords", "times": {"a": 1}}, {"kind": "pattern",
    "pattern": "(a|b)+c"},
    {"kind": "json", "values": {"a": 1}}, {"kind": "json", "lenient": True}, {"kind": "endings", "word": "a"},
    {"kind": "length", "words": 1, "sentences": 1, "paragraphs": 1, "lines": 1, "characters": 1}, {"kind": "finished"},
    {"kind": "language", "language": "en"}, {"kind": "equation", "solutions": [1]},
    {"kind": "all", "of": [{"kind": "length", "words": 1}, {"kind": "not", "of": [{"kind": "contains",
    "any": ["x"]}]}]},
    {"kind": "not", "of": [{"kind": "finished"}]},
    {"kind": "any", "of": [{"kind": "number", "value": 1}, {"kind": "contains", "all": ["one"]}]},
]  # fmt: skip
# Pieces that the patterns of the checkers look for.
PIECES = [
    "51", "-", "1/2", "%", " and ", "三百", "万", "点", "百分之", "分之", "half", "one ", "hundred ", "\\boxed{",
    "}", "{",
    "$", "**", "`", "```json\n", "```", "\\frac{", "answer is ", "答案", "x = ", "√", "(", ")", "^", ".", "。",
    "!", '"', "[",
    "\n", "- ", "1. ", "not ", "，", "km", "小时", "\x00", "\ud800", "é", "١", "²", "½", "①", "<think>", "A", "I ",
    "e9", ",",
]  # fmt: skip
HUGE = {
    "digits": "9", "letters": "a", "parentheses": "(", "lines": "\n", "words": "one ", "numbers": "1 ",
    "commas": "1,000,",
    "scales": "三百", "equals": "x=1,", "brackets": "[", "fences": "```\n", "answers": "the answer is ", "stops": ". ",
    "stars": "**", "boxes": "\\boxed{", "dollars": "$", "fractions": "\\frac{", "percent": "百分之", "spaces": " ",
    "not": "not ", "minus": "-", "quotes": '"', "braces": '{"a":', "halves": "a half ", "hundreds": "hundred and ",
}  # fmt: skip


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ({}, "a table with a kind"), ({"kind": "numbr"}, "did you mean number?"),
        ({"kind": "zzz"}, "the kinds are number"),
        ({"kind": "number"}, "value is missing"), ({"kind": "number",
        "valeu": 3}, "unknown parameter valeu, did you mean value?"),
        ({"kind": "number", "value": "x"}, "'x' is no number"), ({"kind": "number",
        "value": True}, "a number is needed"),
        ({"kind": "number", "value": float("nan")}, "no number"), ({"kind": "pattern",
        "pattern": "("}, "no regular expression"),
        ({"kind": "pattern", "pattern": "(?x)a #", "whole": True}, "no regular expression"),
        ({"kind": "json", "schema": {"type": "objekt"}}, "not a JSON schema"), ({"kind": "all",
        "of": []}, "at least 1 item"),
        ({"kind": "all", "of": [{"kind": "nubmer"}]}, "did you mean number?"), ({"kind": "all", "of": 5}, "of"),
        ({"kind": "choice", "answer": "Z"}, "none of the choices A, B, C, D"), ({"kind": "length"}, "is needed"),
        ({"kind": "length", "words": [5, 2]}, "[least, most]"), ({"kind": "language",
        "language": "xx"}, "the languages are en"),
        ({"kind": "contains"}, "is needed"), ({"kind": "keywords"}, "is needed"), ({"kind": "set",
        "values": []}, "at least 1"),
        ({"kind": "equation"}, "either solutions or an equation"), ({"kind": "equation",
        "equation": "sin(x)=1"}, "no expression"),
        ({"kind": "equation", "equation": "((x^9)^9)^9=1"}, "degree"), ({"kind": "python",
        "cases": {"f(": 1}}, "no Python expression"),
        ({"kind": "python", "seconds": 1000}, "less than or equal to 60"), ({"kind": "endings"}, "word is missing"),
    ],
)  # fmt: skip
def test_what_a_suite_has_wrong_is_said(check: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        checker(check)
    assert words in f"{caught.value.what} {caught.value.why}"


def test_checks_are_not_nested_without_end() -> None:
    check: dict[str, Any] = {"kind": "finished"}
    for _ in range(MOST_DEPTH + 1):
        check = {"kind": "not", "of": [check]}
    with pytest.raises(UsageError, match="nested too deeply"):
        checker(check)


def test_checks_combine() -> None:
    short, red = {"kind": "length", "words": [1, 3]}, {"kind": "contains", "all": ["red"]}
    assert right({"kind": "all", "of": [short, red]}, "It is red")
    assert not right({"kind": "all", "of": [short, red]}, "It is red, I think")
    assert right({"kind": "any", "of": [short, red]}, "It is red, I think")
    assert not right({"kind": "any", "of": [short, red]}, "It is blue, I think")
    assert right({"kind": "not", "of": [short, red]}, "It is blue, I think")
    assert not right({"kind": "not", "of": [short, red]}, "blue")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=30).map("".join)))
def test_no_text_makes_a_checker_raise_or_change_its_mind(text: str) -> None:
    for check in CHECKS:
        each = checker(check)
        found = each.check(GivenAnswer(text, "length"))
        assert found.score in (0.0, 1.0)
        assert len(found.seen) <= 300
        assert each.check(GivenAnswer(text, "length")) == found


@pytest.mark.parametrize("piece", HUGE.values(), ids=HUGE)
def test_long_answers_are_graded(piece: str) -> None:
    text = (piece * 10_000)[:10_000]
    for check in CHECKS:
        assert checker(check).check(GivenAnswer(text, "length")).score in (0.0, 1.0)


@pytest.mark.soak
@pytest.mark.parametrize("piece", HUGE.values(), ids=HUGE)
def test_a_megabyte_is_graded_in_bounded_time(piece: str) -> None:
    text = (piece * 1_000_000)[:1_000_000]
    for check in CHECKS:
        begin = time.process_time()
        checker(check).check(GivenAnswer(text, "length"))
        assert time.process_time() - begin < 60, check


def test_every_kind_but_python_is_tried_with_odd_texts() -> None:
    assert {check["kind"] for check in CHECKS} == KINDS.keys() - {"python"}
