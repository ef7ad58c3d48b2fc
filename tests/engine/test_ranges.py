"""Grammars of numbers between limits, held against the numbers themselves."""

import re
from decimal import Decimal

import pytest

from edgellm.engine.grammar.ranges import integers, multiples, numbers

LIMITS = (None, -300, -100, -7, -1, 0, 1, 9, 10, 99, 105, 300)
DECIMALS = (None, -10, -1.5, -0.5, 0, 0.05, 0.1, 0.25, 0.29, 0.5, 1, 1.05, 2, 9.5, 10, 19.99)
PARTS = re.compile(r'"([^"]*)"|(\[[^\]]*\])|(\{[^}]*\})|([()|?*+])')


def pattern(grammar: str | None) -> re.Pattern[str]:
    """The regular expression of a grammar without rules."""
    found = PARTS.finditer(grammar or '"nothing"')
    return re.compile("".join(f"(?:{re.escape(it[1])})" if it[1] is not None else it[0] for it in found))


@pytest.mark.parametrize("least", LIMITS)
def test_integers(least: int | None) -> None:
    for most in LIMITS:
        matches = pattern(integers(least, most)).fullmatch
        for value in range(-320, 320):
            wanted = (least is None or value >= least) and (most is None or value <= most)
            assert bool(matches(str(value))) is wanted, (least, most, value)


@pytest.mark.parametrize("least", DECIMALS)
def test_numbers(least: float | None) -> None:
    fractions = ("", ".0", ".05", ".1", ".25", ".255", ".29", ".3", ".49", ".5", ".50", ".51", ".9", ".99")
    texts = [f"{sign}{whole}{part}" for sign in ("", "-") for whole in (0, 1, 2, 9, 10, 19, 101) for part in fractions]
    for most in DECIMALS:
        matches = pattern(numbers(least, most)).fullmatch
        for text in texts:
            value = Decimal(text)
            wanted = (least is None or value >= Decimal(repr(least))) and (most is None or value <= Decimal(repr(most)))
            assert bool(matches(text)) is wanted or (text.startswith("-0") and value == 0), (least, most, text)


@pytest.mark.parametrize("divisor", [1, 2, 7, 60, 200])
def test_multiples(divisor: int) -> None:
    rules = multiples(divisor)
    assert all(rules.values()), "every rule has an end"
    for value in range(1, 10 ** (len(str(divisor)) + 1)):
        rule = rules["start"]
        for digit in str(value):
            step = re.search(rf'"{digit}" (rest-\d+-\d+)', rule)
            rule = rules[step[1]] if step else ""
        assert ('""' in rule) is (value % divisor == 0), value
