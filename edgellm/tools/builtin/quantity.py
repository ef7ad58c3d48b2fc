"""Numbers with units, and what can be done with them: exact fractions of a bounded size.

plus(Quantity(Fraction(1, 2)), Quantity(Fraction(1, 3)), 1).text  ->  "5/6 (about 0.8333333333)"
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Context, Decimal
from fractions import Fraction
from typing import NoReturn

from edgellm.errors import BadRequest
from edgellm.tools.builtin.units import Dimension, Unit, unit

# 1,200 decimal digits.
MOST_BITS = 4_000


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


def refuse(why: str) -> NoReturn:
    """Raise the error of an expression that has no value."""
    raise BadRequest(why)


def bounded(number: Fraction) -> Fraction:
    """The number, unless it is too large."""
    if max(number.numerator.bit_length(), number.denominator.bit_length()) > MOST_BITS:
        refuse("the number has more than 1,200 digits")
    return number


def plain(value: Quantity) -> Quantity:
    """A value without a unit."""
    if value.dimension:
        refuse(f"{value.text} has a unit; a number is needed there")
    return value


def plus(one: Quantity, other: Quantity, sign: int) -> Quantity:
    """A sum, or with `sign` -1 a difference, of two values of the same kind of unit."""
    if one.dimension != other.dimension:
        refuse(f"{one.text} and {other.text} have different units")
    number = bounded(one.number + sign * other.number)
    return replace(one, number=number, is_exact=one.is_exact and other.is_exact, is_percent=False)


def times(one: Quantity, other: Quantity) -> Quantity:
    """A product, with the units of both."""
    return _combined(one, other, bounded(one.number * other.number), 1)


def divided(one: Quantity, other: Quantity, sign: str) -> Quantity:
    """A quotient; a whole one for the sign //, and a remainder for mod."""
    if other.number == 0:
        refuse(f"{one.text} divided by 0 is undefined: no number can be divided by zero")
    if sign == "mod":
        if one.dimension != other.dimension:
            refuse("a remainder needs two numbers of the same unit")
        return replace(one, number=bounded(one.number % other.number), is_exact=one.is_exact and other.is_exact)
    quotient = bounded(one.number / other.number)
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
    scale = bounded(one.scale * other.scale**sign) if names else one.scale if one.shown else other.scale**sign
    return Quantity(number, dimension, is_exact, shown, scale if shown else Fraction(1))


def _joined(one: Dimension, other: Dimension, sign: int) -> Dimension:
    powers = dict(one)
    for name, power in other:
        powers[name] = powers.get(name, 0) + sign * power
    return tuple(sorted((name, power) for name, power in powers.items() if power))


def _dimension_text(dimension: Dimension) -> str:
    return " ".join(name if power == 1 else f"{name}^{power}" for name, power in dimension)


def with_unit(value: Quantity, name: str, known: Unit) -> Quantity:
    """A number with a unit behind it."""
    if value.dimension:
        refuse(f"{value.text} has a unit already")
    number = bounded(value.number * known.factor + known.offset)
    return Quantity(number, known.dimension, value.is_exact, name, known.factor)


def converted(value: Quantity, name: str) -> Quantity:
    """A value in another unit of the same kind."""
    known = unit(name)
    if name in ("%", "percent"):
        return Quantity(plain(value).number * 100, is_exact=value.is_exact)
    if known is None:
        refuse(f"{name!r:.40} is no unit of the calculator")
    if known.dimension != value.dimension:
        refuse(f"{value.text} cannot be given in {name}: they measure different things")
    return replace(value, shown=name, scale=known.factor)
