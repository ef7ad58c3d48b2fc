"""The kind `number`: the answer's final number, with its unit, equals the expected one.

NumberChecker(value=1.5, unit="km").check(GivenAnswer("1500 m")).score  ->  1.0
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator, Field

from edgellm.evaluation.checkers.base import CheckerModel, right, wrong
from edgellm.evaluation.checkers.numerals import LABEL, FoundNumber, exact, numbers
from edgellm.evaluation.checkers.plain import is_denied, plain, stated
from edgellm.evaluation.checkers.units import conversion, converted
from edgellm.evaluation.verdict import GivenAnswer, Verdict

# Lines of an answer that are searched, from its end, and characters of each; and of one that is but a number.
MOST_LINES = 2000
MOST_LINE = 2000
MOST_BARE = 60
# Between two numbers of one calculation.
_LINK = re.compile(
    r"[^.;。；\n]{0,30}[-+×x*/÷=≈:^][^.;。；\n]{0,12}|\s*(?:plus|minus|times|divided by|is|加|减|乘以?|除以|得|是)\s*"
)
_OTHERWISE = re.compile(r"\s*[,，、]?\s*(?:or|或者?|还是)(?:\s+(?:maybe|perhaps|even))?\s*(?:是)?", re.IGNORECASE)
_EQUALS = re.compile(r"[=≈]|等于|\bequals?\b")
# Between a number and its smaller part: "1 hour and 30 minutes", "1小时30分".
_AND = re.compile(r"\s*(?:,|and|又|零)?\s*")


Exact = Annotated[Fraction, BeforeValidator(exact)]


class NumberChecker(CheckerModel):
    """Whether the final number is `value`, give or take `tolerance` (in the same unit).

    With a `unit` the answer may use another one of the same kind; a bare number is in the asked unit. Without one any
    unit will do, and 25 % is 25 as well as 0.25.
    """

    value: Exact
    unit: str = Field(default="", max_length=40)
    tolerance: Exact = Fraction(0)

    def check(self, answer: GivenAnswer) -> Verdict:
        """Find the final number and compare it."""
        text = plain(answer.text)
        found, other = final_number(text, self.unit)
        if found is None:
            return wrong(f"there is no number, {self._wanted} is right", answer.text[-100:])
        if other is not None:
            return wrong("it gives several answers", f"{found.text} or {other.text}")
        if any(abs(value - self.value) <= self.tolerance for value in self._readings(found)):
            return right(found.text)
        return wrong(f"{self._wanted} is right", found.text)

    @property
    def _wanted(self) -> str:
        return f"{self.value} {self.unit}".strip()

    def _readings(self, found: FoundNumber) -> list[Fraction]:
        """What the number means, in the asked unit."""
        if not self.unit:
            return [found.value, found.value / 100] if found.unit == "%" else [found.value]
        if not found.unit:
            return [found.value]
        value = converted(found.value, found.unit, self.unit)
        return [] if value is None else [value]


def final_number(text: str, unit: str = "") -> tuple[FoundNumber | None, FoundNumber | None]:
    """The number that a text, made plain, states as its answer; and another one that it offers instead.

    It is looked for in a box, after words that announce an answer, in a line of its own, after the last equals sign of
    the last line with a number, and else it is the last number. Numbers in words count where there are no digits.
    """
    line = stated(text)
    if line is not None and (found := _numbers(line, unit)):
        return _first_result(line, found)
    unlabelled = LABEL.sub(lambda label: " " * len(label[0]), text)
    lines = [line[-MOST_LINE:] for line in unlabelled.split("\n") if line.strip()][-MOST_LINES:]
    for line in reversed([line for line in lines if len(line) <= MOST_BARE]):
        found = _numbers(line, unit)
        if len(found) == 1 and not re.search(r"[^\W\d_]", line[: found[0].start] + line[found[0].end :]):
            return found[0], None
    for line in reversed(lines):
        if found := _numbers(line, unit):
            return _last_result(line, found)
    return None, None


def _numbers(line: str, unit: str) -> list[FoundNumber]:
    """The numbers of a line that may be the answer: not denied, in digits if there are any, in the unit if any is."""
    found = [each for each in numbers(line) if not is_denied(line, each.start)]
    if any(not each.is_word for each in found):
        found = [each for each in found if not each.is_word]
    found = _joined(line, found)
    if unit:
        found = [each for each in found if each.unit and conversion(each.unit, unit)] or found
    return found


def _joined(line: str, found: list[FoundNumber]) -> list[FoundNumber]:
    """The same, where "1 hour 30 minutes" is one number."""
    joined: list[FoundNumber] = []
    for each in found:
        if joined and _continues(line, joined[-1], each):
            last = joined.pop()
            factor = conversion(each.unit, last.unit) or Fraction(0)
            value = last.value + each.value * factor
            each = FoundNumber(value, last.unit, last.start, each.end, line[last.start : each.end])
        joined.append(each)
    return joined


def _continues(line: str, last: FoundNumber, each: FoundNumber) -> bool:
    if not (last.unit and each.unit) or last.unit == "%" or not _AND.fullmatch(line[last.end : each.start]):
        return False
    factor = conversion(each.unit, last.unit)
    return factor is not None and 0 <= each.value * factor < 1 and factor < 1


def _first_result(line: str, found: list[FoundNumber]) -> tuple[FoundNumber, FoundNumber | None]:
    """The first number, or the last of the calculation that begins with it."""
    at = 0
    while at + 1 < len(found) and _LINK.fullmatch(line[found[at].end : found[at + 1].start]):
        at += 1
    following = found[at + 1] if at + 1 < len(found) else None
    return found[at], _other(line, found[at], following)


def _last_result(line: str, found: list[FoundNumber]) -> tuple[FoundNumber, FoundNumber | None]:
    """The number after the last equals sign, or the last number."""
    signs = list(_EQUALS.finditer(line))
    after = [each for each in found if signs and each.start >= signs[-1].end()]
    if after:
        return _first_result(line, after)
    before = found[-2] if len(found) > 1 else None
    return found[-1], before and _other(line, before, found[-1]) and before


def _other(line: str, one: FoundNumber, two: FoundNumber | None) -> FoundNumber | None:
    """The second number, if the text offers it instead of the first."""
    if two is None or two.value == one.value or not _OTHERWISE.fullmatch(line[one.end : two.start]):
        return None
    return two
