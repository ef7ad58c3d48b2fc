"""Exact arithmetic: parses an expression and computes it with fractions; nothing is evaluated as code.

    compute("15% of 80 + 2^10").text      ->  "1036"
    compute("1/2 + 1/3").text             ->  "5/6 (about 0.8333333333)"
    compute("5 km in miles").text         ->  "3.10685596118667 miles"

Numbers are fractions of at most `MOST_BITS`; a power that would be larger is refused before it is computed. Roots,
logarithms and angles are computed to 30 digits and marked as approximate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Context, Decimal, DecimalException
from fractions import Fraction
from typing import NoReturn

from edgellm.errors import BadRequest
from edgellm.tools.builtin.units import Dimension, Unit, unit

MOST_CHARACTERS = 1_000
MOST_DEPTH = 64
# 1,200 decimal digits.
MOST_BITS = 4_000
MOST_FACTORIAL = 400
_DIGITS = Context(prec=30)
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,4}(?![\w.]))?|\.\d+)"
    r"|(?P<word>km/h|°?[A-Za-zµ]+\d?|√)|(?P<sign>\*\*|//|[-+*/^%()!,]))"
)
_SIGNS = str.maketrans({
    "×": "*", "·": "*", "∙": "*", "⋅": "*", "÷": "/", "∕": "/", "−": "-", "–": "-", "—": "-", "（": "(", "）": ")",
    "％": "%", "＋": "+", "，": ",", "[": "(", "]": ")", "{": "(", "}": ")", "：": "/", "²": "^2"[0],
})  # fmt: skip
_CONSTANTS = {"pi": Fraction(Decimal("3.14159265358979323846264338328")), "e": Fraction(_DIGITS.exp(1))}
_CONSTANTS["π"] = _CONSTANTS["pi"]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with the exponents of base units; `is_exact` is false after a root or a logarithm.

    `shown` is the unit to write it in, as text, and `scale` how many base units that is. `is_percent` is a number that
    was written with a % sign.
    """

    number: Fraction
    dimension: Dimension = ()
    is_exact: bool = True
    shown: str = ""
    scale: Fraction = Fraction(1)
    is_percent: bool = False

    @property
    def text(self) -> str:
        """The number as people write it, with its unit: a decimal if it is a short one, else a fraction."""
        if not self.dimension:
            return number_text(self.number, is_exact=self.is_exact)
        known = unit(self.shown)
        number = (self.number - (known.offset if known else 0)) / self.scale
        written = number_text(number, is_exact=self.is_exact and (number * 10**6).denominator == 1)
        return f"{written} {self.shown or _dimension_text(self.dimension)}"


def number_text(number: Fraction, *, is_exact: bool = True) -> str:
    """A number: whole, as a decimal that ends within 12 places, or as a fraction with its decimal beside it."""
    if not is_exact:
        return _rounded(number)
    if number.denominator == 1:
        return str(number.numerator)
    scaled = number * 10**12
    if scaled.denominator == 1:
        return f"{Decimal(scaled.numerator).scaleb(-12, Context(prec=MOST_BITS)).normalize(Context(prec=MOST_BITS)):f}"
    if number.denominator < 10**6:
        return f"{number.numerator}/{number.denominator} (about {_rounded(number, 10)})"
    return _rounded(number)


def _rounded(number: Fraction, digits: int = 15) -> str:
    context = Context(prec=digits)
    value = context.divide(Decimal(number.numerator), Decimal(number.denominator)).normalize(context)
    return f"{value:f}" if -12 < value.adjusted() < 21 else f"{value:e}"


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


def refuse(why: str) -> NoReturn:
    """Raise the error of an expression that has no value."""
    raise BadRequest(why)


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
            value = _converted(value, name)
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
                other = _times(value, other)
            value = _plus(value, other, -1 if sign in ("-", "minus") else 1)
        self._depth -= 1
        return value

    def _product(self) -> Quantity:
        value = self._signed()
        while True:
            if self._takes("*", "times", "of", "x"):
                value = _times(value, self._signed())
            elif sign := self._takes("/", "//", "per", "mod"):
                value = _divided(value, self._signed(), sign)
            elif self._peek() == "%":
                self._at += 1
                value = _divided(value, self._signed(), "mod")
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
        return _power(base, self._signed()) if self._takes("^", "**") else base

    def _postfix(self) -> Quantity:
        value = self._atom()
        while True:
            if self._takes("!"):
                value = Quantity(Fraction(_factorial(value)))
            elif self._peek() == "%" and self._is_percent_sign():
                self._at += 1
                value = Quantity(_plain(value).number / 100, is_exact=value.is_exact, is_percent=True)
            elif self._at < len(self._tokens) and self._tokens[self._at].kind == "word" and self._is_unit():
                name = self._next().text
                known = unit(name)
                value = _with_unit(value, name, known) if known else value
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
        if lower in _CONSTANTS and self._peek() != "(":
            return Quantity(_CONSTANTS[lower], is_exact=False)
        if lower in FUNCTIONS or name == "√":
            return self._called("sqrt" if name == "√" else lower)
        if known := unit(name):  # "km" alone is one of them
            return _with_unit(Quantity(Fraction(1)), name, known)
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
    return _bounded(Fraction(f"{mantissa}e{exponent or 0}"))


def _bounded(number: Fraction) -> Fraction:
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > MOST_BITS:
        refuse("the number has more than 1,200 digits")
    return number


def _plain(value: Quantity) -> Quantity:
    """A value without a unit."""
    if value.dimension:
        refuse(f"{value.text} has a unit; a number is needed there")
    return value


def _plus(one: Quantity, other: Quantity, sign: int) -> Quantity:
    if one.dimension != other.dimension:
        refuse(f"{one.text} and {other.text} have different units")
    number = _bounded(one.number + sign * other.number)
    return replace(one, number=number, is_exact=one.is_exact and other.is_exact, is_percent=False)


def _times(one: Quantity, other: Quantity) -> Quantity:
    return _combined(one, other, _bounded(one.number * other.number), 1)


def _divided(one: Quantity, other: Quantity, sign: str) -> Quantity:
    if other.number == 0:
        refuse(f"{one.text} divided by 0 is undefined: no number can be divided by zero")
    if sign == "mod":
        if one.dimension != other.dimension:
            refuse("a remainder needs two numbers of the same unit")
        return replace(one, number=_bounded(one.number % other.number), is_exact=one.is_exact and other.is_exact)
    quotient = _bounded(one.number / other.number)
    return _combined(one, other, Fraction(quotient.__floor__()) if sign == "//" else quotient, -1)


def _combined(one: Quantity, other: Quantity, number: Fraction, sign: int) -> Quantity:
    """A product (`sign` 1) or a quotient (-1) with the units of both."""
    dimension = _joined(one.dimension, other.dimension, sign)
    is_exact = one.is_exact and other.is_exact
    if not dimension:
        return Quantity(number, is_exact=is_exact)
    names = [one.shown, other.shown] if one.dimension and other.dimension else []
    if names and not all(names):
        return Quantity(number, dimension, is_exact)
    shown = (" " if sign > 0 else "/").join(names) if names else (one.shown or (other.shown if sign > 0 else ""))
    scale = _bounded(one.scale * other.scale**sign) if names else one.scale if one.shown else other.scale**sign
    return Quantity(number, dimension, is_exact, shown, scale if shown else Fraction(1))


def _power(base: Quantity, exponent: Quantity) -> Quantity:
    power = _plain(exponent).number
    if base.dimension and power.denominator != 1:
        refuse("a unit can only be raised to a whole power")
    if base.number == 0 and power < 0:
        refuse("0 to a negative power is undefined: no number can be divided by zero")
    if power.denominator != 1 or not (base.is_exact and exponent.is_exact):
        return _approximate(_real_power(base.number, power))
    bits = max(base.number.numerator.bit_length(), base.number.denominator.bit_length())
    if abs(power) * max(1, bits - 1) > MOST_BITS:
        if abs(base.number) in (0, 1):
            power %= 2
        else:
            refuse("the number has more than 1,200 digits")
    if base.dimension and abs(power) > 9:
        refuse("a unit can only be raised to a power of at most 9")
    dimension = tuple((name, int(each * power)) for name, each in base.dimension if power)
    return Quantity(_bounded(base.number ** int(power)), dimension)


def _real_power(base: Fraction, power: Fraction) -> Decimal:
    if base < 0:
        refuse("a negative number has no real root")
    if base == 0:
        return Decimal(0)
    exponent = _DIGITS.multiply(_DIGITS.ln(_decimal(base)), _decimal(power))
    if abs(exponent) > MOST_BITS // 2:
        refuse("the number has more than 1,200 digits")
    return _DIGITS.exp(exponent)


def _joined(one: Dimension, other: Dimension, sign: int) -> Dimension:
    powers = dict(one)
    for name, power in other:
        powers[name] = powers.get(name, 0) + sign * power
    return tuple(sorted((name, power) for name, power in powers.items() if power))


def _dimension_text(dimension: Dimension) -> str:
    return " ".join(name if power == 1 else f"{name}^{power}" for name, power in dimension)


def _with_unit(value: Quantity, name: str, known: Unit) -> Quantity:
    if value.dimension:
        refuse(f"{value.text} has a unit already")
    number = _bounded(value.number * known.factor + known.offset)
    return Quantity(number, known.dimension, value.is_exact, name, known.factor)


def _converted(value: Quantity, name: str) -> Quantity:
    known = unit(name)
    if name in ("%", "percent"):
        return Quantity(_plain(value).number * 100, is_exact=value.is_exact)
    if known is None:
        refuse(f"{name!r:.40} is no unit of the calculator")
    if known.dimension != value.dimension:
        refuse(f"{value.text} cannot be given in {name}: they measure different things")
    return replace(value, shown=name, scale=known.factor)


def _decimal(number: Fraction) -> Decimal:
    return _DIGITS.divide(Decimal(number.numerator), Decimal(number.denominator))


def _approximate(value: Decimal | float) -> Quantity:
    return Quantity(_bounded(Fraction(value)), is_exact=False)


def _factorial(value: Quantity) -> int:
    number = _plain(value).number
    if number.denominator != 1 or not 0 <= number <= MOST_FACTORIAL:
        refuse(f"a factorial is for whole numbers from 0 to {MOST_FACTORIAL}")
    return math.factorial(int(number))


def _root(value: Quantity, degree: Quantity | None = None) -> Quantity:
    """The exact root of a number that has one, else 30 digits of it."""
    number, n = value.number, int(_plain(degree).number) if degree else 2
    if not 1 <= n <= 64:
        refuse("a root is of degree 1 to 64")
    if number < 0:
        refuse("a negative number has no real root")
    top, bottom = _whole_root(number.numerator, n), _whole_root(number.denominator, n)
    if top is not None and bottom is not None and value.is_exact:
        return Quantity(Fraction(top, bottom))
    _plain(value)
    return _approximate(_DIGITS.sqrt(_decimal(number)) if n == 2 else _real_power(number, Fraction(1, n)))


def _whole_root(number: int, n: int) -> int | None:
    low, high = 0, 1 << (number.bit_length() // n + 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle**n < number else (low, middle)
    return low if low**n == number else None


def _rounded_to(value: Quantity, places: Quantity | None = None) -> Quantity:
    n = int(_plain(places).number) if places else 0
    if abs(n) > 100:
        refuse("a number is rounded to at most 100 places")
    half = Fraction(1, 2)
    scaled = abs(value.number) * Fraction(10) ** n + half  # half away from zero, as people round
    sign = -1 if value.number < 0 else 1
    return replace(value, number=sign * Fraction(scaled.__floor__()) / Fraction(10) ** n, is_exact=True)


def _of_float(function: Callable[[float], float]) -> Callable[..., Quantity]:
    return lambda value: _approximate(function(float(_plain(value).number)))


def _log(value: Quantity, base: Quantity | None = None) -> Quantity:
    if _plain(value).number <= 0:
        refuse("only a positive number has a logarithm")
    if base is None:
        return _approximate(_DIGITS.log10(_decimal(value.number)))
    return _approximate(_DIGITS.divide(_DIGITS.ln(_decimal(value.number)), _DIGITS.ln(_decimal(_plain(base).number))))


def _ln(value: Quantity) -> Quantity:
    if _plain(value).number <= 0:
        refuse("only a positive number has a logarithm")
    return _approximate(_DIGITS.ln(_decimal(value.number)))


def _chosen(choose: Callable[..., Quantity]) -> Callable[..., Quantity]:
    def of(*values: Quantity) -> Quantity:
        if len({value.dimension for value in values}) > 1:
            refuse("these have different units")
        return choose(values, key=lambda value: value.number)

    return of


def _mean(*values: Quantity) -> Quantity:
    total = values[0]
    for value in values[1:]:
        total = _plus(total, value, 1)
    return replace(total, number=total.number / len(values))


def _whole(function: Callable[..., int]) -> Callable[..., Quantity]:
    def of(*values: Quantity) -> Quantity:
        numbers = [_plain(value).number for value in values]
        if any(number.denominator != 1 for number in numbers):
            refuse("these must be whole numbers")
        return Quantity(_bounded(Fraction(function(*map(int, numbers)))))

    return of


def _total(*values: Quantity) -> Quantity:
    total = values[0]
    for value in values[1:]:
        total = _plus(total, value, 1)
    return total


MANY = 100
# How few and how many numbers each takes.
FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., Quantity]]] = {
    "sqrt": (1, 1, _root), "root": (2, 2, _root), "abs": (1, 1, lambda v: replace(v, number=abs(v.number))),
    "round": (1, 2, _rounded_to), "floor": (1, 1, lambda v: replace(v, number=Fraction(v.number.__floor__()))),
    "ceil": (1, 1, lambda v: replace(v, number=Fraction(v.number.__ceil__()))), "log": (1, 2, _log), "ln": (1, 1, _ln),
    "log10": (1, 1, _log), "log2": (1, 1, lambda v: _log(v, Quantity(Fraction(2)))),
    "exp": (1, 1, lambda v: _approximate(_real_power(_CONSTANTS["e"], _plain(v).number))),
    "sin": (1, 1, _of_float(math.sin)), "cos": (1, 1, _of_float(math.cos)), "tan": (1, 1, _of_float(math.tan)),
    "asin": (1, 1, _of_float(math.asin)), "acos": (1, 1, _of_float(math.acos)), "atan": (1, 1, _of_float(math.atan)),
    "min": (1, MANY, _chosen(min)), "max": (1, MANY, _chosen(max)), "mean": (1, MANY, _mean), "avg": (1, MANY, _mean),
    "average": (1, MANY, _mean), "sum": (1, MANY, _total), "gcd": (2, MANY, _whole(math.gcd)),
    "lcm": (2, MANY, _whole(math.lcm)), "mod": (2, 2, lambda a, b: _divided(a, b, "mod")),
    "factorial": (1, 1, lambda v: Quantity(Fraction(_factorial(v)))), "pow": (2, 2, _power),
}  # fmt: skip
