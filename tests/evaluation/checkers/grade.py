"""Grades answers in tests: `right(check, answer)` says whether a checker made from data accepts it."""

from typing import Any

from edgellm.evaluation.checkers import checker
from edgellm.evaluation.verdict import GivenAnswer, Verdict


def verdict(check: dict[str, Any], text: str, finish_reason: str = "stop") -> Verdict:
    return checker(check).check(GivenAnswer(text, finish_reason))


def right(check: dict[str, Any], text: str) -> bool:
    found = verdict(check, text)
    assert found.score in (0.0, 1.0)
    assert (found.why == "") == (found.score == 1)
    return found.score == 1
