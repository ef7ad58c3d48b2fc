"""What a Chinese question says: it is read by its characters, and the Latin words in it as English ones."""

from __future__ import annotations

import re

from edgellm.cache import chinese_words as words
from edgellm.cache.english import TOKEN, english, joined
from edgellm.cache.question_facts import CHINESE, QuestionFacts, axes, normalised, table

IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


def chinese(text: str) -> QuestionFacts:
    """Read a question in Chinese, by its characters."""
    latin = english(" ".join(TOKEN.findall(IDEOGRAPH.sub(" ", text))))
    names = list(latin.names) + [
        joined(each) for each in re.findall(r"[A-Za-z][\w-]*", text) if joined(each) not in latin.names
    ]
    folded = text.casefold()
    languages = {_LANGUAGE[each] for each in words.LANGUAGES if each in folded}
    numbers, units, folded = _numbers(folded)
    for spelled, measure in words.MEASURES.items():
        folded = folded.replace(spelled, measure)
    sides: dict[int, set[int]] = {}
    for word, places in _AXIS.items():
        if word in folded:
            for axis, side in places:
                sides.setdefault(axis, set()).add(side)
    for each in words.YES_NO:
        folded = folded.replace(each, " ")
    calm = folded
    for each in words.NOT_NEGATED:
        calm = calm.replace(each, " ")
    is_negated = any(each in calm for each in words.NEGATIONS if each != "忘")
    kinds, folded = _kinds(folded)
    roles = {name: frozenset(found[1]) for name, pattern in _ROLES.items() if (found := pattern.search(text))}
    folded = _SYNONYMS.sub(lambda word: _SYNONYM[word[0]], folded)
    for each in words.FILLERS:
        folded = folded.replace(each, " ")
    folded = re.sub(words.AUXILIARY, " ", folded)
    content = tuple(IDEOGRAPH.findall(folded))
    return QuestionFacts(
        text, tuple(normalised(text)), numbers, tuple(names), frozenset(units) | latin.units, is_negated,
        frozenset(languages) | latin.languages, {axis: frozenset(found) for axis, found in sides.items()},
        frozenset(kinds), content, roles, language=CHINESE,
    )  # fmt: skip


def _kinds(text: str) -> tuple[set[str], str]:
    kinds = set()
    for kind, marks in words.KINDS.items():
        for mark in sorted(marks.split(), key=len, reverse=True):
            if mark in text:
                kinds.add(kind)
                text = text.replace(mark, " ")
    return kinds - {"what"}, text


_UNIT_PATTERN = "|".join(sorted(words.UNITS, key=len, reverse=True))
_NUMBER = re.compile(rf"(第?)(\d+(?:[.,]\d+)*|[零一二两三四五六七八九十百千万]+)\s*({_UNIT_PATTERN})?")
_PERIOD = re.compile(r"每(?:一|个)*(小时|天|日|周|星期|月|季度|年|晚|夜)")
_BARE_UNITS = re.compile("摄氏度|华氏度|摄氏|华氏|英里|公里|千克|公斤|盎司|英寸|厘米|英尺|美元|欧元|日元|英镑|人民币")
_ROLES = {
    "from": re.compile("(?:从|由)(.+?)(?:到|至|往|寄到|转|改|换|变|向)"),
    "to": re.compile("(?:从|由).+?(?:到|至|往|向|成|为)([^\\s，,？?]{1,6})"),
    "than": re.compile("(?<![相同环对])比(?!例|较)([^\\s，,？?]{1,4})"),
    "object": re.compile("(?:把|将)(.{1,6}?)(?:换|改|转|变|翻译|移|复制)"),
}


def _numbers(text: str) -> tuple[tuple[str, ...], set[str], str]:
    """The numbers and units, and the text without them."""
    numbers, units = [], set()

    def period(found: re.Match[str]) -> str:
        units.add("每" + words.UNIT_NAMES.get(found[1], found[1]))
        return " "

    def number(found: re.Match[str]) -> str:
        digits, unit = found[2], found[3]
        if found.start() and text[found.start() - 1] in "哪某":
            return found[0]
        if not digits[0].isdigit():
            if not (found[1] or unit or len(digits) > 1) or (
                digits == "一" and unit in ("个", "次", "条", "种", "点", None)
            ):
                return found[0]
            digits = _value(digits)
        if found.start() and re.match(r"[A-Za-z-]", text[found.start() - 1]):
            return found[0]  # a part of a name
        numbers.append(digits.replace(",", ""))
        if unit:
            units.add(words.UNIT_NAMES.get(unit, unit))
        return " "

    text = _NUMBER.sub(number, _PERIOD.sub(period, text))
    bare = _BARE_UNITS.findall(text)
    units.update(words.UNIT_NAMES.get(each, each).removesuffix("度") for each in bare)
    return tuple(numbers), units, _BARE_UNITS.sub(" ", text)


def _value(digits: str) -> str:
    """十五 -> 15; numbers from 10,000 on stay as they are written."""
    if "万" in digits:
        return digits
    total, current = 0, 0
    for each in digits:
        if each in _SCALES:
            total, current = total + (current or 1) * _SCALES[each], 0
        else:
            current = 2 if each == "两" else words.DIGITS.index(each)
    return str(total + current)


_SCALES = {"十": 10, "百": 100, "千": 1000}
_AXIS = axes(words.AXES, str)
_SYNONYM = {word: first for first, line in table(words.SYNONYMS) for word in line}
_SYNONYMS = re.compile("|".join(sorted(_SYNONYM, key=len, reverse=True)))
_LANGUAGE = {each: each.rstrip("语文") for each in words.LANGUAGES}
