"""The numbers in a text: digits, fractions, powers of ten, percentages, English number words and Chinese numerals.

[each.value for each in numbers("3.5 km or 1万 steps")]  ->  [Fraction(7, 2), Fraction(10000, 1)]

Values are exact. The text is one that `plain` has made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from edgellm.cache.chinese_words import DIGITS as CHINESE_DIGITS
from edgellm.cache.english_words import CARDINALS, TENS
from edgellm.evaluation.checkers.units import PATTERN as UNIT

# Longer numbers are no answers, and Python refuses to read some of them.
MOST_DIGITS = 400
MOST_EXPONENT = 400
_WORDS = {word: value for value, word in enumerate(CARDINALS)} | {word: 10 * n for n, word in enumerate(TENS, 2)}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {
    "half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10,
}  # fmt: skip
_HAN_SCALES = {"十": 10, "百": 100, "千": 1000, "万": 10**4, "亿": 10**8}
_HAN_DIGITS = {each: value for value, each in enumerate(CHINESE_DIGITS)} | {"两": 2, "〇": 0, "廿": 20}
_HAN = "[零〇一二两三四五六七八九十百千万亿廿]"

_DIGITS = (
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,3}(?: [0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![0-9])\.[0-9]+"
)
_WORD = rf"(?:{'|'.join(sorted([*_WORDS, *_SCALES], key=len, reverse=True))})"
_PART = rf"(?:{'|'.join(sorted(_PARTS, key=len, reverse=True))})s?"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\].%])[-–+] ?|负|零下|\b(?:minus|negative)\s)?(?P<money>[$€£¥￥]\s?)?(?:"
    rf"百分之(?P<hanpercent>{_HAN}+(?:点{_HAN}+)?|{_DIGITS})"
    rf"|(?P<below>{_HAN}{{1,5}})分之(?P<above>{_HAN}{{1,5}})"
    rf"|(?P<digits>{_DIGITS})(?:"
    rf"\s?[x×*]\s?10\s?\^\s?\(?(?P<power>[-+]?[0-9]{{1,6}})\)?|[eE](?P<exponent>[-+]?[0-9]{{1,6}})(?![\w])"
    rf"|(?:\s(?P<top>[0-9]{{1,9}}))?\s?/\s?(?P<bottom>[0-9]{{1,9}})(?![0-9/]|\.[0-9]|\s?/))?"
    rf"(?P<scale>\s?(?:千万|百万|万亿|万|亿)|\s(?:hundred|thousand|million|billion|trillion)s?\b)?"
    rf"|(?P<han>{_HAN}+(?:点{_HAN}+)?)"
    rf"|\b(?P<words>{_WORD}(?:(?:[ -]|\sand\s){_WORD}){{0,12}})(?P<part>[ -]{_PART})?\b"
    rf"|\b(?P<piece>(?:an?\s)?{_PART})\b|(?P<hanhalf>一?半)"
    rf")(?P<percent>\s?(?:%|percent\b|per\s?cent\b|个百分点))?(?P<half>个?半(?![径数天夜])|\sand\sa\shalf\b)?"
    rf"\s?(?P<unit>{UNIT})?",
    re.IGNORECASE,
)
# Marks at the beginning of a line that count it: "3. ", "(2)", "Step 4:", "第一步".
LABEL = re.compile(
    r"^[^\S\n]*(?:[-*•][^\S\n]+)?(?:(?:step|question|q|part|步骤|第)[^\S\n]*)?"
    r"(?:\([0-9]{1,3}\)(?=[^\S\n]*\S)|[0-9]{1,3}[.):、](?=\s|[^\W\d])"
    rf"|(?<=step )[0-9]{{1,3}}\b|(?<=第)(?:{_HAN}|[0-9]{{1,3}})[步、:])",
    re.IGNORECASE | re.MULTILINE,
)
# One ideograph that counts nothing: 一共, 统一, 十分, 万一.
_NO_NUMBER_AFTER = "共样些定般起直旦切致下边方面种向会儿点次再二三"
_NO_NUMBER_BEFORE = "第唯统万同之逐专某哪每另进"


@dataclass(frozen=True, slots=True)
class FoundNumber:
    """A number at a place of a text. `unit` is as it is written, "%" for a percentage, whose value is not divided.

    `is_word` is true for one in English words.
    """

    value: Fraction
    unit: str
    start: int
    end: int
    text: str
    is_word: bool = False


def numbers(text: str) -> Iterator[FoundNumber]:
    """The numbers of a text, in order."""
    for found in _NUMBER.finditer(text):
        value = _value(found, text)
        if value is None:
            continue
        if found["half"] is not None:
            value += Fraction(1, 2)
        is_word = found["words"] is not None or found["piece"] is not None
        unit = "%" if found["percent"] or found["hanpercent"] else found["unit"] or (found["money"] or "").strip()
        negative = _is_negative(found, text)
        start = found.start() if negative or not found["sign"] else found.end("sign")
        shown = text[start : found.end()].strip()
        yield FoundNumber(-value if negative else value, unit, start, found.end(), shown, is_word)


def exact(value: object) -> Fraction:
    """The number that a suite gives: an integer, a decimal, or a fraction in a string; ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)) or len(str(value)) > MOST_DIGITS:
        raise ValueError("a number is needed, or a fraction in a string")
    try:
        return Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{str(value)[:40]!r} is no number") from None


def _is_negative(found: re.Match[str], text: str) -> bool:
    """Whether the sign before a number belongs to it: it is no bullet, dash or subtraction."""
    sign = (found["sign"] or "").lower()
    if sign[:1] not in ("-", "–"):
        return sign.strip() not in ("", "+")
    before = text[max(0, found.start() - 3) : found.start()].rstrip(" ")[-1:]
    if before.isdigit() or before in (")", "%"):
        return False
    return sign[-1] != " " or (before != "" and before in "=:(,≈是为")


def han_value(text: str) -> Fraction:
    """The value of a Chinese numeral: 三百二十, 两万零五, 三点一四, 二零二四."""
    whole, _, decimals = text.partition("点")
    value = Fraction(_han_whole(whole))
    digits = "".join(str(_HAN_DIGITS.get(each, 0)) for each in decimals)
    return value + (Fraction(int(digits), 10 ** len(digits)) if digits else 0)


def _value(found: re.Match[str], text: str) -> Fraction | None:
    """The value without its sign, None for what only looks like a number."""
    if len(found[0]) > MOST_DIGITS:
        return None
    if percent := found["hanpercent"]:
        return _decimal(percent) if percent[0].isascii() else han_value(percent)
    if found["below"]:
        below = han_value(found["below"])
        return han_value(found["above"]) / below if below else None
    if found["digits"]:
        return _digits_value(found, text)
    if found["han"]:
        return han_value(found["han"]) if _counts(found, text) else None
    if found["hanhalf"]:
        return None if re.match("[径数夜]", text[found.end() : found.end() + 1]) else Fraction(1, 2)
    if found["words"]:
        value = _word_value(found["words"])
        return value / _part(found["part"]) if found["part"] else value
    return Fraction(1, _part(found["piece"])) if found["piece"].split()[0].lower() in ("a", "an", "half") else None


def _digits_value(found: re.Match[str], text: str) -> Fraction | None:
    before = text[found.start("digits") - 1 : found.start("digits")]
    if before.isascii() and (before.isalpha() or before == "_"):
        return None  # a part of a name: x1, GPT4
    value = _decimal(found["digits"])
    exponent = found["power"] or found["exponent"]
    if exponent:
        if abs(int(exponent)) > MOST_EXPONENT:
            return None
        value *= Fraction(10) ** int(exponent)
    if found["bottom"]:
        bottom = int(found["bottom"])
        if not bottom:
            return None
        value = value + Fraction(int(found["top"]), bottom) if found["top"] else value / bottom
    return value * _scale(found["scale"])


def _decimal(digits: str) -> Fraction:
    return Fraction(digits.replace(",", "").replace(" ", ""))


def _scale(scale: str | None) -> int:
    if not scale:
        return 1
    word = scale.strip().lower()
    if word in ("千万", "百万", "万亿"):
        return _HAN_SCALES[word[0]] * _HAN_SCALES[word[1]]
    return _HAN_SCALES.get(word) or _SCALES[word.rstrip("s")]


def _counts(found: re.Match[str], text: str) -> bool:
    """Whether a Chinese numeral is a number, not a part of a word."""
    numeral, end = found["han"], found.end("han")
    before, after = text[found.start("han") - 1 : found.start("han")], text[end : end + 1]
    if numeral[0] in "百千万亿" and len(numeral) == 1:
        return False
    if numeral == "十" and after in ("分", "足") and not found["unit"]:
        return False
    if len(numeral) > 1 or found["unit"] or found["sign"]:
        return True
    if before in _NO_NUMBER_BEFORE and before:
        return False
    return not (numeral == "一" and after and after in _NO_NUMBER_AFTER)


def _han_whole(text: str) -> int:
    if text and not any(each in _HAN_SCALES for each in text):
        return int("".join(str(_HAN_DIGITS[each]) for each in text))  # 二零二四
    total = section = digit = 0
    last_scale = 1
    for each in text:
        if each not in _HAN_SCALES:
            digit = _HAN_DIGITS[each]
            last_scale = 10 if digit == 0 else last_scale
            continue
        scale = _HAN_SCALES[each]
        if scale >= 10**4:
            section = (section + digit) or 1
            total, section = (total + section) * scale if each == "亿" else total + section * scale, 0
        else:
            section += (digit or 1) * scale
        digit, last_scale = 0, scale
    # 三千五 is 3500, 三千零五 is 3005, 二十五 is 25.
    return total + section + digit * (last_scale // 10 if last_scale >= 100 else 1)


def _word_value(text: str) -> Fraction:
    """The value of English number words."""
    total = current = 0
    for word in re.findall("[a-z]+", text.lower()):
        if word in _WORDS:
            current += _WORDS[word]
        elif word == "hundred":
            current = (current or 1) * 100
        elif word in _SCALES:
            total, current = total + (current or 1) * _SCALES[word], 0
    return Fraction(total + current)


def _part(text: str) -> int:
    word = re.findall("[a-z]+", text.lower())[-1]
    return _PARTS.get(word) or _PARTS[word.rstrip("s")]
