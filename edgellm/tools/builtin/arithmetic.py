"""Exact arithmetic: parses an expression and computes it with fractions; nothing is evaluated as code.

    compute("15% of 80 + 2^10").text      ->  "1036"
    compute("1/2 + 1/3").text             ->  "5/6 (about 0.8333333333)"
    compute("5 km in miles").text         ->  "3.10685596118667 miles"

Numbers are fractions of at most `MOST_BITS`; a power that would be larger is refused before it is computed. Results of
roots, logarithms and angles are marked as approximate. `quantity.py` has the numbers, `functions.py` the functions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import DecimalException
from fractions import Fraction

from edgellm.errors import BadRequest
from edgellm.tools.builtin.functions import CONSTANTS, FUNCTIONS, factorial, power
from edgellm.tools.builtin.quantity import (
    MOST_BITS,
    Quantity,
    bounded,
    converted,
    divided,
    plain,
    plus,
    refuse,
    times,
    with_unit,
)
from edgellm.tools.builtin.units import unit

MOST_CHARACTERS = 1_000
MOST_DEPTH = 64
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,4}(?![\w.]))?|\.\d+)"
    r"|(?P<word>km/h|°?[A-Za-zµ]+\d?|√)|(?P<sign>\*\*|//|[-+*/^%()!,]))"
)
_SIGNS = str.maketrans({
    "×": "*", "·": "*", "∙": "*", "⋅": "*", "÷": "/", "∕": "/", "−": "-", "–": "-", "—": "-", "（": "(", "）": ")",
    "％": "%", "＋": "+", "，": ",", "[": "(", "]": ")", "{": "(", "}": ")", "：": "/", "²": "^2"[0],
})  # fmt: skip


def compute(expression: str) -> Quantity:
    """The value of an expression.

    Raises:
        BadRequest: it cannot be read, is undefined, or too large; `what` is one plain sentence.
    """
    if len(expression) > MOST_CHARACTERS:
        refuse(f"the expression is longer than {MOST_CHARACTERS:,} characters")
    try:
        return _Parser(expression).whole()
    except (ArithmeticError, DecimalException, ValueError, RecursionError) as error:
        raise BadRequest("the result is undefined or too large", why=type(error).__name__) from error


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


class _Parser:
    """Recursive descent: sum, product, sign, power, postfix, atom; one method each."""

    def __init__(self, expression: str) -> None:
        text = re.sub("([²³])", lambda found: {"²": "^2", "³": "^3"}[found[1]], expression)
        self._tokens = _tokens(text.translate(_SIGNS).removesuffix("=").strip().removesuffix("="))
        self._at = self._depth = 0

    def whole(self) -> Quantity:
        """The value of the whole expression, in the unit after `in` if there is one."""
        if not self._tokens:
            refuse("there is nothing to compute")
        value = self._sum()
        if self._takes("in", "to", "as"):
            name = self._next().text if self._at < len(self._tokens) else ""
            value = converted(value, name)
        if self._at < len(self._tokens):
            refuse(f"{self._tokens[self._at].text!r:.40} is not expected there")
        return value

    def _peek(self) -> str:
        return self._tokens[self._at].text if self._at < len(self._tokens) else ""

    def _next(self) -> _Token:
        if self._at >= len(self._tokens):
            refuse("the expression is not complete")
        self._at += 1
        return self._tokens[self._at - 1]

    def _takes(self, *texts: str) -> str:
        if self._peek().lower() in texts:
            self._at += 1
            return self._tokens[self._at - 1].text.lower()
        return ""

    def _sum(self) -> Quantity:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            refuse("the brackets are nested too deeply")
        value = self._product()
        while sign := self._takes("+", "-", "plus", "minus"):
            other = self._product()
            if other.is_percent and not value.is_percent:  # 80 + 10% is 88
                other = times(value, other)
            value = plus(value, other, -1 if sign in ("-", "minus") else 1)
        self._depth -= 1
        return value

    def _product(self) -> Quantity:
        value = self._signed()
        while True:
            if self._takes("*", "times", "of", "x"):
                value = times(value, self._signed())
            elif sign := self._takes("/", "//", "per", "mod"):
                value = divided(value, self._signed(), sign)
            elif self._peek() == "%":
                self._at += 1
                value = divided(value, self._signed(), "mod")
            else:
                return value

    def _signed(self) -> Quantity:
        minus = 0
        while sign := self._takes("-", "+"):
            minus += sign == "-"
        value = self._power()
        return replace(value, number=-value.number) if minus % 2 else value

    def _power(self) -> Quantity:
        base = self._postfix()
        return power(base, self._signed()) if self._takes("^", "**") else base

    def _postfix(self) -> Quantity:
        value = self._atom()
        while True:
            if self._takes("!"):
                value = Quantity(Fraction(factorial(value)))
            elif self._peek() == "%" and self._is_percent_sign():
                self._at += 1
                value = Quantity(plain(value).number / 100, is_exact=value.is_exact, is_percent=True)
            elif self._at < len(self._tokens) and self._tokens[self._at].kind == "word" and self._is_unit():
                name = self._next().text
                known = unit(name)
                value = with_unit(value, name, known) if known else value
            else:
                return value

    def _is_percent_sign(self) -> bool:
        """Whether a % is no remainder: nothing that could be divided by follows."""
        following = self._tokens[self._at + 1] if self._at + 1 < len(self._tokens) else None
        return following is None or (following.kind != "number" and following.text not in ("(", "√"))

    def _is_unit(self) -> bool:
        word = self._peek()
        return word.lower() not in ("in", "to", "as", "of", "per", "mod", "x", "times", "plus", "minus") and bool(
            unit(word)
        )

    def _atom(self) -> Quantity:
        token = self._next()
        if token.kind == "number":
            return Quantity(_number(token.text))
        if token.text == "(":
            value = self._sum()
            self._closed()
            return value
        if token.kind == "word":
            return self._named(token.text)
        return refuse(f"{token.text!r:.40} is not expected there")

    def _closed(self) -> None:
        if not self._takes(")"):
            refuse("a bracket is not closed")

    def _named(self, name: str) -> Quantity:
        lower = name.lower()
        if lower in CONSTANTS and self._peek() != "(":
            return Quantity(CONSTANTS[lower], is_exact=False)
        if lower in FUNCTIONS or name == "√":
            return self._called("sqrt" if name == "√" else lower)
        if known := unit(name):  # "km" alone is one of them
            return with_unit(Quantity(Fraction(1)), name, known)
        return refuse(f"{name!r:.40} is no number, unit or function of the calculator")

    def _called(self, name: str) -> Quantity:
        least, most, function = FUNCTIONS[name]
        if not self._takes("("):
            return function(self._postfix())
        given = [self._sum()]
        while self._takes(","):
            given.append(self._sum())
        self._closed()
        if not least <= len(given) <= most:
            refuse(f"{name} takes {least if least == most else f'{least} to {most}'} numbers, not {len(given)}")
        return function(*given)


def _tokens(text: str) -> list[_Token]:
    found, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            refuse(f"{text[at:].strip()[:20]!r} cannot be read")
        kind = match.lastgroup or ""
        found.append(_Token(kind, match[kind]))
        at = match.end()
    return found


def _number(text: str) -> Fraction:
    mantissa, _, exponent = text.replace(",", "").lower().partition("e")
    if abs(int(exponent or 0)) > MOST_BITS // 4:
        refuse(f"{text:.40} is too large or too small")
    return bounded(Fraction(f"{mantissa}e{exponent or 0}"))
