"""Expressions of numbers: digits, + - * / ^, roots, parentheses, and ± for two values. Nothing is executed.

[str(value) for value in values_of("(15 ± √121)/4")]  ->  ["6.5", "1"]

Values have 60 digits, so that expressions of roots can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal, DecimalException, DivisionByZero, InvalidOperation, Overflow, localcontext
from typing import Any

# Two values are the same if they differ by less, relative to their size.
SAME = Decimal(10) ** -40
MOST_TOKENS = 200
MOST_DEPTH = 40
MOST_POWER = 64
_CONTEXT = Context(prec=60, Emax=10_000, Emin=-10_000, traps=[InvalidOperation, DivisionByZero, Overflow])
_NUMBER = r"(?:[0-9]{1,100}(?:\.[0-9]{1,100})?|\.[0-9]{1,100})(?![0-9])"
_TOKEN = re.compile(rf"\s*(?:(?P<number>{_NUMBER})|(?P<sign>sqrt|√|\*\*|[-+*/^()×÷·±−])|(?P<name>[a-z](?![a-z])))")
_MIXED = re.compile(r"(?<![0-9./^])([0-9]{1,9})\s+([0-9]{1,9}\s*/\s*[0-9]{1,9})(?![0-9.])")
_SAME_SIGN = {"**": "^", "×": "*", "·": "*", "÷": "/", "−": "-", "√": "sqrt"}
# What an expression does not end in.
_OPEN = ("+", "-", "*", "/", "^", "(", "sqrt", "±")


class NotAnExpression(ValueError):
    """A text is no expression of numbers, or one that is too large."""


@dataclass(frozen=True, slots=True)
class NumberSystem:
    """How an expression becomes a value: what a number and a root are, and the values of names."""

    number: Any = Decimal
    root: Any = Decimal.sqrt
    names: Mapping[str, Any] = field(default_factory=dict)


DECIMALS = NumberSystem()


def values_of(text: str) -> list[Decimal]:
    """The value of the expression that a text begins with; two where it has ±.

    Raises:
        NotAnExpression: the text does not begin with one, or it has no value.
    """
    tokens = _tokens(_MIXED.sub(r"(\1+\2)", text), DECIMALS)
    while tokens and tokens[-1] in _OPEN:
        tokens.pop()
    if not tokens:
        raise NotAnExpression(f"{text[:60]!r} is no expression of numbers")
    with localcontext(_CONTEXT):
        signs = "+-" if "±" in tokens else "+"
        return list(dict.fromkeys(_read([sign if t == "±" else t for t in tokens], DECIMALS) for sign in signs))


def whole_value(text: str, system: NumberSystem) -> Any:
    """The value of a text that is nothing but an expression; raises as `values_of` does."""
    tokens = _tokens(text, system)
    if sum(map(len, tokens)) != len(re.sub(r"\s", "", text).replace("**", "^").replace("√", "sqrt")):
        raise NotAnExpression(f"{text[:60]!r} is no expression")
    return _read(tokens, system)


def is_same(one: Decimal, two: Decimal) -> bool:
    """Whether two values are the same number."""
    return abs(one - two) <= SAME * max(abs(one), abs(two), Decimal(1))


def _tokens(text: str, system: NumberSystem) -> list[str]:
    """The tokens at the beginning of a text, as far as they may be one expression."""
    found: list[str] = []
    at = 0
    while token := _TOKEN.match(text, at):
        sign, name = token["sign"], token["name"]
        if name and name not in system.names:
            if found and text[at] == name:
                raise NotAnExpression(f"{name} has no value")  # 2y, but not "2 m"
            break
        if len(found) >= MOST_TOKENS:
            raise NotAnExpression("it is too long")
        closes_nothing = sign == ")" and found.count("(") <= found.count(")")
        if closes_nothing or (token["number"] and found and _is_digit(found[-1])):
            break
        found.append(_SAME_SIGN.get(sign, sign) if sign else name or token["number"])
        at = token.end()
    return found


def _is_digit(token: str) -> bool:
    return token[0].isdigit() or token[0] == "."


def _read(tokens: list[str], system: NumberSystem) -> Any:
    try:
        return _Reader(tokens, system).value()
    except (DecimalException, ArithmeticError, TypeError, ValueError, IndexError) as error:
        raise NotAnExpression(f"{' '.join(tokens)[:60]!r} has no value: {error}") from error


class _Reader:
    """Reads tokens by recursive descent: sums of products of powers."""

    def __init__(self, tokens: list[str], system: NumberSystem) -> None:
        self._tokens = tokens
        self._system = system
        self._at = 0
        self._depth = 0

    def value(self) -> Any:
        """The value of all tokens."""
        value = self._sum()
        if self._at != len(self._tokens):
            raise NotAnExpression("it ends too early")
        return value

    def _next(self, *wanted: str) -> str | None:
        """Take the next token if it is one of these."""
        if self._peek() not in wanted:
            return None
        self._at += 1
        return self._tokens[self._at - 1]

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _sum(self) -> Any:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise NotAnExpression("it is nested too deeply")
        value = self._product()
        while sign := self._next("+", "-"):
            other = self._product()
            value = value + other if sign == "+" else value - other
        self._depth -= 1
        return value

    def _product(self) -> Any:
        value = self._signed()
        while True:
            if self._next("*"):
                value = value * self._signed()
            elif self._next("/"):
                value = value / self._signed()
            elif self._peek() in ("(", "sqrt", *self._system.names):
                value = value * self._power()  # 2√3, 2x
            else:
                return value

    def _signed(self) -> Any:
        negative = False
        while sign := self._next("+", "-"):
            negative ^= sign == "-"
        return -self._power() if negative else self._power()

    def _power(self) -> Any:
        base = self._atom()
        if not self._next("^"):
            return base
        exponent = -int(self._atom()) if self._next("-") else self._atom()
        if int(exponent) != exponent or abs(int(exponent)) > MOST_POWER:
            raise NotAnExpression("the power is no small whole number")
        return base ** int(exponent)

    def _atom(self) -> Any:
        if self._next("("):
            value = self._sum()
            if not self._next(")"):
                raise NotAnExpression("a parenthesis is open")
            return value
        if self._next("sqrt"):
            return self._system.root(self._atom())
        token = self._tokens[self._at]
        self._at += 1
        if token in self._system.names:
            return self._system.names[token]
        if not _is_digit(token):
            raise NotAnExpression(f"{token!r} stands where a number should")
        return self._system.number(token)
