"""The kind `equation`: the answer names all solutions of an equation, and nothing else.

EquationChecker(solutions=("1", "13/2")).check(GivenAnswer("x = 1 or x = 6.5")).score  ->  1.0
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from math import prod
from typing import Annotated

from pydantic import Field, PrivateAttr, model_validator

from edgellm.errors import UsageError
from edgellm.evaluation.checkers.base import CheckerModel, shown, verdict, wrong
from edgellm.evaluation.checkers.expression import NotAnExpression, NumberSystem, is_same, values_of, whole_value
from edgellm.evaluation.checkers.plain import is_denied, plain, stated
from edgellm.evaluation.verdict import GivenAnswer, Verdict

# The highest degree that an equation's text may have.
MOST_DEGREE = 64
# Lines of an answer that are searched, from its end, and characters of each.
MOST_LINES = 2000
MOST_LINE = 2000
# Lines without a solution that may stand between two with one.
MOST_GAP = 1
_SEPARATOR = re.compile(r"[,，、;；{}]|\s(?:or|and)\s|或者?|[和及且]|⇒|=>|→")
_NONE = re.compile(
    r"\bno (?:real )?(?:solutions?|roots?|values?)\b|\bnot have (?:any )?(?:real )?(?:solutions?|roots?)\b"
    r"|无实?数?[解根]|没有实?数?[解根]|∅|空集",
    re.IGNORECASE,
)


class EquationChecker(CheckerModel):
    """Whether the answer gives exactly the real solutions, in any form: fractions, decimals, roots.

    They are given as `solutions` (none: there is none), or found by sympy from a polynomial `equation` such as
    "2x^2 - 15x + 13 = 0". Solutions are read from "x = ..." (x1, x₂ too), else from the list that an answer states.
    """

    variable: Annotated[str, Field(pattern="^[a-z]$")] = "x"
    solutions: Annotated[tuple[str | int | float, ...], Field(max_length=64)] | None = None
    equation: Annotated[str, Field(min_length=3, max_length=300)] | None = None

    _wanted: list[Decimal] = PrivateAttr()

    @model_validator(mode="after")
    def _has_solutions(self) -> EquationChecker:
        if (self.solutions is None) == (self.equation is None):
            raise ValueError("either solutions or an equation is needed")
        if self.equation is not None:
            self._wanted = _solved(self.equation, self.variable)
        else:
            self._wanted = [value for each in self.solutions or () for value in values_of(str(each))]
        return self

    def check(self, answer: GivenAnswer) -> Verdict:
        """Read the solutions and compare them."""
        text = plain(answer.text)
        found = self._found(text)
        if not found and not self._wanted and _NONE.search(text):
            return verdict(True, "", "no solution")
        seen = ", ".join(name for name, _ in found)
        if not found:
            return wrong("it gives no solution that can be read", text[-100:])
        values = [value for _, each in found for value in each]
        missing = [value for value in self._wanted if not any(is_same(value, each) for each in values)]
        excess = [value for value in values if not any(is_same(value, each) for each in self._wanted)]
        faults = [f"{_short(missing)} is missing"] * bool(missing) + [f"{_short(excess)} is none"] * bool(excess)
        return verdict(not faults, "; ".join(faults), seen)

    def _found(self, text: str) -> list[tuple[str, list[Decimal]]]:
        """The solutions that an answer gives, as it writes them and as values."""
        if (line := stated(text)) is not None:
            found = list(self._assigned(line)) or list(_listed(line))
            if found:
                return found
        run: list[tuple[str, list[Decimal]]] = []
        gap = 0
        for line in reversed([line for line in text.split("\n") if line.strip()][-MOST_LINES:]):
            found = list(self._assigned(line))
            gap = 0 if found else gap + 1
            if run and gap > MOST_GAP:
                break
            run = found + run
        return run or list(_listed(text.strip().rpartition("\n")[2]))

    def _assigned(self, line: str) -> Iterator[tuple[str, list[Decimal]]]:
        """The values in "x = 1 or 6.5, x2 = 13/2": the last part of each chain of equals signs before any ≈."""
        sign = rf"(?<![A-Za-z0-9_^*/.)]){self.variable}(?:_?\{{?[0-9]\}}?)?\s*(?:=|∈|≈|等于|is\b|为)"
        line = line[:MOST_LINE]
        signs = list(re.finditer(sign, line))
        ends = [*(each.start() for each in signs[1:]), len(line)]
        for each, end in zip(signs, ends, strict=False):
            if is_denied(line, each.start()):
                continue
            for piece in _SEPARATOR.split(line[each.end() : end]):
                exact = piece.partition("≈")[0] or piece
                yield from _value(exact.rpartition("=")[2] or exact)


def _listed(line: str) -> Iterator[tuple[str, list[Decimal]]]:
    """The values of a list without a variable: "1 and 6.5"."""
    for piece in _SEPARATOR.split(line[:MOST_LINE]):
        yield from _value(piece)


def _value(text: str) -> Iterator[tuple[str, list[Decimal]]]:
    try:
        values = values_of(text.strip(" .。:："))
    except NotAnExpression:
        return
    yield shown(text.strip()), values


def _short(values: list[Decimal]) -> str:
    return ", ".join(f"{value.normalize():.10g}" for value in values)


def _solved(equation: str, variable: str) -> list[Decimal]:
    """The real solutions of a polynomial equation; ValueError if it is none, UsageError without sympy."""
    try:
        import sympy
    except ImportError:
        raise UsageError(
            "an equation is solved by sympy, which is not installed", hint="pip install 'edgellm[eval]'"
        ) from None
    powers = [int(power) for power in re.findall(r"(?:\^|\*\*)\s*\(?\s*([0-9]{1,3})", equation)]
    if prod(powers) * max(1, equation.count(variable)) > MOST_DEGREE:
        raise ValueError(f"its degree may be more than {MOST_DEGREE}")
    symbol = sympy.Symbol(variable)
    system = NumberSystem(sympy.Rational, sympy.sqrt, {variable: symbol})
    left, sign, right = equation.partition("=")
    try:
        sides = [whole_value(side, system) for side in (left, right if sign else "0")]
        roots = sympy.real_roots(sympy.Poly(sides[0] - sides[1], symbol), multiple=False)
    except (sympy.PolynomialError, NotImplementedError) as error:
        raise ValueError(f"it is no polynomial in {variable}: {str(error)[:100]}") from None
    return [Decimal(str(root.evalf(60))) for root, _ in roots]
