"""Units of measurement in English and Chinese, and exact conversions between those of one kind.

converted(Fraction(3, 2), "小时", "min")  ->  Fraction(90, 1)

A word may be several units: 分 is a minute, a hundredth of a yuan, or a point. What is asked for decides.
"""

from __future__ import annotations

import re
from fractions import Fraction

# A kind of quantity, then its units: a factor and the words for it.
_TABLE = """
length | 1/1000 mm millimetre millimeter 毫米 | 1/100 cm centimetre centimeter 厘米 公分
length | 1 m metre meter 米 | 1000 km kilometre kilometer 千米 公里 | 500 里
length | 127/5000 inch 英寸 | 381/1250 ft foot feet 英尺
length | 1/10 dm decimetre decimeter 分米 | 1143/1250 yd yard 码 | 201168/125 mi mile 英里
mass | 1/1000000 mg milligram 毫克 | 1/1000 g gram 克 | 1 kg kilogram 千克 公斤 | 1/2 斤 | 1000 t ton tonne 吨
mass | 45359237/100000000 lb lbs pound 磅 | 45359237/1600000000 oz ounce 盎司
time | 1/1000 ms millisecond 毫秒 | 1 s sec second 秒 秒钟 | 60 min minute 分钟 分 | 900 刻钟 | 3600 h hr hour 小时 钟头
time | 86400 d day 天 日 | 604800 week 周 星期
months | 1 month 个月 月 | 12 year yr 年
volume | 1/1000 ml millilitre milliliter 毫升 cm^3 cm3 立方厘米 | 1 l litre liter 升 dm^3 | 1000 m^3 m3 立方米
area | 1/10000 cm^2 cm2 平方厘米 | 1 m^2 m2 平方米 | 10000 ha hectare 公顷 | 2000/3 亩
area | 1000000 km^2 km2 平方公里 平方千米
speed | 1 m/s 米/秒 米每秒 | 5/18 km/h kph kmh 公里/小时 千米/小时 千米/时 公里/时 km/小时 | 1397/3125 mph
data | 1/8 bit 比特 | 1 byte 字节 | 1000 kb | 1000000 mb | 1000000000 gb | 1000000000000 tb
yuan | 1 元 块 块钱 yuan rmb ¥ ￥ 人民币 | 1/10 角 毛 | 1/100 分
dollar | 1 $ dollar usd 美元 | 1/100 cent 美分
euro | 1 € euro eur 欧元
sterling | 1 £ gbp 英镑
celsius | 1 °c ℃ celsius 摄氏度 度 ° degree
fahrenheit | 1 °f fahrenheit 华氏度 ° degree
angle | 1 ° degree 度
share | 1 % percent 百分点
point | 1 point 分
"""


def _read(table: str) -> dict[str, dict[str, Fraction]]:
    units: dict[str, dict[str, Fraction]] = {}
    for line in table.strip().splitlines():
        kind, *groups = (part.split() for part in line.split("|"))
        for factor, *words in groups:
            for word in words:
                units.setdefault(word, {})[kind[0]] = Fraction(factor)
    return units


_UNITS = _read(_TABLE)
_LETTERS = sorted((word for word in _UNITS if re.search("[a-z]", word)), key=len, reverse=True)
_SIGNS = sorted((word for word in _UNITS if not re.search("[a-z]", word)), key=len, reverse=True)
# For a pattern that ignores case: a unit after a number.
PATTERN = (
    rf"-?(?:{'|'.join(map(re.escape, _LETTERS))})(?:e?s)?(?![a-z0-9/^]|-[a-z])"
    rf"|{'|'.join(map(re.escape, _SIGNS))}"
)


def is_known(unit: str) -> bool:
    """Whether this is a unit of the table."""
    return _entry(unit) is not None


def converted(value: Fraction, unit: str, asked: str) -> Fraction | None:
    """A quantity in the unit that is asked for; None if it is of another kind."""
    if _folded(unit) == _folded(asked):
        return value
    own, other = _entry(unit), _entry(asked)
    if own is None or other is None:
        return None
    kind = next((kind for kind in other if kind in own), None)
    return None if kind is None else value * own[kind] / other[kind]


def conversion(unit: str, asked: str) -> Fraction | None:
    """How many of the asked unit one of the other is; None if they are of different kinds."""
    return converted(Fraction(1), unit, asked)


def _folded(unit: str) -> str:
    return unit.strip().lstrip("-").casefold()


def _entry(unit: str) -> dict[str, Fraction] | None:
    word = _folded(unit)
    return _UNITS.get(word) or _UNITS.get(word.removesuffix("s")) or _UNITS.get(word.removesuffix("es"))
