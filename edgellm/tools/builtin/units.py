"""Units of measure as exact factors of base units, for the calculator.

unit("km")          ->  Unit(Fraction(1000), {"m": 1})
unit("miles")       ->  Unit(Fraction(1609344, 1000), {"m": 1})

Factors are exact by definition (an inch is 2.54 cm). Temperatures have an offset too, so they can be converted but not
multiplied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

# Exponents of base units, those of 0 left out.
Dimension = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """`factor` base units of this dimension; `offset` is where a scale of temperature begins, in kelvin."""

    factor: Fraction
    dimension: Dimension
    offset: Fraction = field(default=Fraction(0))


# base dimension; then "names = factor". Of several names the first is written in results.
_TABLE = """
m: m metre metres meter meters = 1; km kilometre kilometres kilometer kilometers kms = 1000; dm = 1/10
m: cm centimetre centimetres centimeter centimeters = 1/100; mm millimetre millimetres millimeter millimeters = 1/1000
m: um micrometre micrometer = 1/1000000; nm nanometre nanometer = 1/1000000000
m: mi mile miles = 1609344/1000; yd yard yards = 9144/10000; ft foot feet = 3048/10000; inch inches = 254/10000
m: nmi = 1852
kg: kg kilogram kilograms kilo kilos = 1; g gram grams = 1/1000; mg milligram milligrams = 1/1000000
kg: t tonne tonnes = 1000; lb lbs pound pounds = 45359237/100000000; oz ounce ounces = 45359237/1600000000
kg: st stone stones = 635029318/100000000
s: s sec secs second seconds = 1; ms millisecond milliseconds = 1/1000; min mins minute minutes = 60
s: h hr hrs hour hours = 3600; day days d = 86400; week weeks wk = 604800; year years yr = 31557600
m2: ha hectare hectares = 10000; acre acres = 40468564224/10000000
m3: l litre litres liter liters L = 1/1000; ml millilitre millilitres milliliter milliliters mL = 1/1000000
m3: cl = 1/100000; dl = 1/10000; gal gallon gallons = 3785411784/1000000000000; pint pints = 473176473/1000000000000
m3: cup cups = 2365882365/10000000000000; floz = 295735295625/10000000000000000
m3: tbsp tablespoon tablespoons = 1478676478125/100000000000000000
m3: tsp teaspoon teaspoons = 492892159375/100000000000000000
ms-1: kmh kph km/h = 1000/3600; mph = 1609344/3600000; knot knots kn = 1852/3600
J: J joule joules = 1; kJ = 1000; MJ = 1000000; cal = 4184/1000; kcal = 4184; Wh = 3600; kWh = 3600000
W: W watt watts = 1; kW = 1000; MW = 1000000; hp = 7456998715822702/10000000000000
N: N newton newtons = 1; kN = 1000
Pa: Pa pascal = 1; kPa = 1000; bar = 100000; mbar hPa = 100; atm = 101325; psi = 6894757293168/1000000000
B: B byte bytes = 1; bit bits = 1/8; kB KB = 1000; MB = 1000000; GB = 1000000000; TB = 1000000000000
B: KiB = 1024; MiB = 1048576; GiB = 1073741824; TiB = 1099511627776
Hz: Hz = 1; kHz = 1000; MHz = 1000000; GHz = 1000000000
A: A amp amps ampere = 1; mA = 1/1000
"""
_DERIVED: dict[str, Dimension] = {
    "m2": (("m", 2),),
    "m3": (("m", 3),),
    "ms-1": (("m", 1), ("s", -1)),
    "J": (("kg", 1), ("m", 2), ("s", -2)),
    "W": (("kg", 1), ("m", 2), ("s", -3)),
    "N": (("kg", 1), ("m", 1), ("s", -2)),
    "Pa": (("kg", 1), ("m", -1), ("s", -2)),
    "Hz": (("s", -1),),
}
_KELVIN: Dimension = (("K", 1),)
_TEMPERATURES = {
    "celsius °c degc": Unit(Fraction(1), _KELVIN, Fraction(27315, 100)),
    "fahrenheit °f degf": Unit(Fraction(5, 9), _KELVIN, Fraction(45967, 180)),
    "kelvin k": Unit(Fraction(1), _KELVIN),
}
# Letters that stand for a temperature only after "in" and beside another one would be too clever: C and F do here.
_LETTERS = {"C": "celsius", "F": "fahrenheit", "K": "kelvin"}


def unit(name: str) -> Unit | None:
    """The unit of that name; capital letters count only where two units differ by them."""
    exact, folded = _units()
    return exact.get(_LETTERS.get(name, name)) or folded.get(name.casefold())


@lru_cache(maxsize=1)
def _units() -> tuple[dict[str, Unit], dict[str, Unit]]:
    exact = dict(_rows())
    for names, scale in _TEMPERATURES.items():
        exact |= dict.fromkeys(names.split(), scale)
    folded: dict[str, Unit] = {}
    for name, each in exact.items():
        folded.setdefault(name.casefold(), each)
    return exact, folded


def _rows() -> Iterator[tuple[str, Unit]]:
    for line in filter(None, _TABLE.splitlines()):
        base, _, rest = line.partition(": ")
        for entry in rest.split("; "):
            names, _, factor = entry.partition(" = ")
            each = Unit(Fraction(factor), _DERIVED.get(base, ((base, 1),)))
            yield from ((name, each) for name in names.split())
