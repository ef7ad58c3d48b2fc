"""Checkers: programs that grade a model's answer, each made from a check, which is data.

    checker({"kind": "number", "value": 51}).check(GivenAnswer("17 * 3 = 51")).score  ->  1.0

A kind of check is a class in one of these modules, and its fields are the parameters. A verdict is 1 or 0: intervals
count items. No answer makes a checker raise or run without end.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from edgellm.errors import UsageError
from edgellm.evaluation.checkers.base import CheckerModel
from edgellm.evaluation.checkers.choice import ChoiceChecker
from edgellm.evaluation.checkers.combined import AllChecker, AnyChecker, NotChecker
from edgellm.evaluation.checkers.equation import EquationChecker
from edgellm.evaluation.checkers.form import EndingsChecker, FinishedChecker, LanguageChecker, LengthChecker
from edgellm.evaluation.checkers.json_text import JsonChecker
from edgellm.evaluation.checkers.number import NumberChecker
from edgellm.evaluation.checkers.program import PythonChecker
from edgellm.evaluation.checkers.words import ContainsChecker, KeywordsChecker, PatternChecker, SetChecker
from edgellm.evaluation.item import Check
from edgellm.evaluation.verdict import Checker
from edgellm.suggest import did_you_mean

KINDS: dict[str, type[CheckerModel]] = {
    "number": NumberChecker,
    "choice": ChoiceChecker,
    "contains": ContainsChecker,
    "set": SetChecker,
    "keywords": KeywordsChecker,
    "pattern": PatternChecker,
    "equation": EquationChecker,
    "json": JsonChecker,
    "python": PythonChecker,
    "endings": EndingsChecker,
    "length": LengthChecker,
    "language": LanguageChecker,
    "finished": FinishedChecker,
    "all": AllChecker,
    "any": AnyChecker,
    "not": NotChecker,
}
# How deep checks may stand inside `all`, `any` and `not`.
MOST_DEPTH = 8


def checker(check: Check) -> Checker:
    """The checker that a check describes.

    Raises:
        UsageError: the kind or a parameter is unknown, is missing, or has a value that makes no sense.
    """
    return _checker(check, 0)


def _checker(check: Any, depth: int) -> CheckerModel:
    if not isinstance(check, dict) or not isinstance(check.get("kind"), str):
        raise UsageError("a check is a table with a kind", why=repr(check)[:100], hint='check = { kind = "number", ...')
    if depth > MOST_DEPTH:
        raise UsageError("a check is nested too deeply", why=f"{MOST_DEPTH} levels are the most")
    parameters = dict(check)
    name = parameters.pop("kind")
    kind = KINDS.get(name) or _refuse(name)
    if isinstance(parts := parameters.get("of"), (list, tuple)):
        parameters["of"] = tuple(_checker(part, depth + 1) for part in parts)
    try:
        return kind(**parameters)
    except (ValidationError, TypeError) as error:
        raise UsageError(f"a check of the kind {name} is not valid", why=_problem(kind, error)) from error


def _refuse(name: str) -> type[CheckerModel]:
    guess = did_you_mean(name, KINDS)
    why = f"did you mean {guess}?" if guess else f"the kinds are {', '.join(KINDS)}"
    raise UsageError(f"there is no check of the kind {name[:40]!r}", why=why, hint=f'kind = "{guess or "number"}"')


def _problem(kind: type[CheckerModel], error: ValidationError | TypeError) -> str:
    """The first thing that is wrong, with the parameter's name; an unknown one explains a missing one."""
    if isinstance(error, TypeError):
        return str(error)[:200]
    problem = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in problem["loc"])[:80]
    if problem["type"] == "missing":
        return f"{where} is missing"
    if problem["type"] != "extra_forbidden":
        message = problem["msg"].removeprefix("Value error, ")[:300]
        return f"{where}: {message}" if where else message
    guess = did_you_mean(where, kind.model_fields)
    return f"unknown parameter {where}, " + (
        f"did you mean {guess}?" if guess else f"known are {', '.join(kind.model_fields) or 'none'}"
    )
