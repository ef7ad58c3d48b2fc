"""The functions of the calculator, its constants and powers; roots, logarithms and angles have 30 digits.

least, most, function = FUNCTIONS["sqrt"]
function(Quantity(Fraction(16))).text  ->  "4"
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Context, Decimal
from fractions import Fraction

from edgellm.tools.builtin.quantity import MOST_BITS, Quantity, bounded, divided, plain, plus, refuse

MOST_FACTORIAL = 400
_DIGITS = Context(prec=30)
CONSTANTS = {"pi": Fraction(Decimal("3.14159265358979323846264338328")), "e": Fraction(_DIGITS.exp(1))}
CONSTANTS["π"] = CONSTANTS["pi"]


def power(base: Quantity, exponent: Quantity) -> Quantity:
    """A power; an approximate one where the exponent is not whole."""
    power = plain(exponent).number
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
    return Quantity(bounded(base.number ** int(power)), dimension)


def _real_power(base: Fraction, power: Fraction) -> Decimal:
    if base < 0:
        refuse("a negative number has no real root")
    if base == 0:
        return Decimal(0)
    exponent = _DIGITS.multiply(_DIGITS.ln(_decimal(base)), _decimal(power))
    if abs(exponent) > MOST_BITS // 2:
        refuse("the number has more than 1,200 digits")
    return _DIGITS.exp(exponent)


def _decimal(number: Fraction) -> Decimal:
    return _DIGITS.divide(Decimal(number.numerator), Decimal(number.denominator))


def _approximate(value: Decimal | float) -> Quantity:
    return Quantity(bounded(Fraction(value)), is_exact=False)


def factorial(value: Quantity) -> int:
    """The factorial of a whole number."""
    number = plain(value).number
    if number.denominator != 1 or not 0 <= number <= MOST_FACTORIAL:
        refuse(f"a factorial is for whole numbers from 0 to {MOST_FACTORIAL}")
    return math.factorial(int(number))


def _root(value: Quantity, degree: Quantity | None = None) -> Quantity:
    """The exact root of a number that has one, else 30 digits of it."""
    number, n = value.number, int(plain(degree).number) if degree else 2
    if not 1 <= n <= 64:
        refuse("a root is of degree 1 to 64")
    if number < 0:
        refuse("a negative number has no real root")
    top, bottom = _whole_root(number.numerator, n), _whole_root(number.denominator, n)
    if top is not None and bottom is not None and value.is_exact:
        return Quantity(Fraction(top, bottom))
    plain(value)
    return _approximate(_DIGITS.sqrt(_decimal(number)) if n == 2 else _real_power(number, Fraction(1, n)))


def _whole_root(number: int, n: int) -> int | None:
    low, high = 0, 1 << (number.bit_length() // n + 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle**n < number else (low, middle)
    return low if low**n == number else None


def _rounded_to(value: Quantity, places: Quantity | None = None) -> Quantity:
    n = int(plain(places).number) if places else 0
    if abs(n) > 100:
        refuse("a number is rounded to at most 100 places")
    half = Fraction(1, 2)
    scaled = abs(value.number) * Fraction(10) ** n + half  # half away from zero, as people round
    sign = -1 if value.number < 0 else 1
    return replace(value, number=sign * Fraction(scaled.__floor__()) / Fraction(10) ** n, is_exact=True)


def _of_float(function: Callable[[float], float]) -> Callable[..., Quantity]:
    return lambda value: _approximate(function(float(plain(value).number)))


def _log(value: Quantity, base: Quantity | None = None) -> Quantity:
    if plain(value).number <= 0:
        refuse("only a positive number has a logarithm")
    if base is None:
        return _approximate(_DIGITS.log10(_decimal(value.number)))
    return _approximate(_DIGITS.divide(_DIGITS.ln(_decimal(value.number)), _DIGITS.ln(_decimal(plain(base).number))))


def _ln(value: Quantity) -> Quantity:
    if plain(value).number <= 0:
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
        total = plus(total, value, 1)
    return replace(total, number=total.number / len(values))


def _whole(function: Callable[..., int]) -> Callable[..., Quantity]:
    def of(*values: Quantity) -> Quantity:
        numbers = [plain(value).number for value in values]
        if any(number.denominator != 1 for number in numbers):
            refuse("these must be whole numbers")
        return Quantity(bounded(Fraction(function(*map(int, numbers)))))

    return of


def _total(*values: Quantity) -> Quantity:
    total = values[0]
    for value in values[1:]:
        total = plus(total, value, 1)
    return total


MANY = 100
# How few and how many numbers each takes.
FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., Quantity]]] = {
    "sqrt": (1, 1, _root), "root": (2, 2, _root), "abs": (1, 1, lambda v: replace(v, number=abs(v.number))),
    "round": (1, 2, _rounded_to), "floor": (1, 1, lambda v: replace(v, number=Fraction(v.number.__floor__()))),
    "ceil": (1, 1, lambda v: replace(v, number=Fraction(v.number.__ceil__()))), "log": (1, 2, _log), "ln": (1, 1, _ln),
    "log10": (1, 1, _log), "log2": (1, 1, lambda v: _log(v, Quantity(Fraction(2)))),
    "exp": (1, 1, lambda v: _approximate(_real_power(CONSTANTS["e"], plain(v).number))),
    "sin": (1, 1, _of_float(math.sin)), "cos": (1, 1, _of_float(math.cos)), "tan": (1, 1, _of_float(math.tan)),
    "asin": (1, 1, _of_float(math.asin)), "acos": (1, 1, _of_float(math.acos)), "atan": (1, 1, _of_float(math.atan)),
    "min": (1, MANY, _chosen(min)), "max": (1, MANY, _chosen(max)), "mean": (1, MANY, _mean), "avg": (1, MANY, _mean),
    "average": (1, MANY, _mean), "sum": (1, MANY, _total), "gcd": (2, MANY, _whole(math.gcd)),
    "lcm": (2, MANY, _whole(math.lcm)), "mod": (2, 2, lambda a, b: divided(a, b, "mod")),
    "factorial": (1, 1, lambda v: Quantity(Fraction(factorial(v)))), "pow": (2, 2, power),
}  # fmt: skip
