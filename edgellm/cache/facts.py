"""What a question says that a similar one must say too: its numbers, names, units, negation, alternatives and words.

facts("Is the TB-80 waterproof?").names  ->  ("tb80",)

Nothing is guessed by a model. English words are reduced to stems, Chinese is read by its characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from edgellm.cache import lexicon as words

ENGLISH, CHINESE = "en", "zh"
MOST_CHARACTERS = 2000
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_KANA = re.compile("[\u3040-\u30ff]")
# Letters beyond the Latin ones.
_OTHER_SCRIPT = re.compile("[\u0370-\u1dff\u2c00-\ua7ff\uac00-\ud7ff\u3040-\u30ff]")
_TOKEN = re.compile(r"\d+(?:[.,:]\d+)*[^\W\d_]*[²³]?|[^\W\d_][\w’'+#&-]*(?:\.\w+)*|[%°€$£¥]")
_LETTERED = re.compile(r"(\d+(?:[.,]\d+)*)([^\W\d_]+[²³]?|%)")
_SIGNS = {"%": "percent", "€": "euro", "$": "dollar", "£": "pound", "¥": "yuan", "°": "degree"}
_ENDINGS = (
    "ibilities", "ibility", "abilities", "ability", "ations", "ation", "itions", "ition", "ements", "ement", "ments",
    "ment", "ables", "able", "ible", "ings", "ing", "ions", "ion", "als", "al", "ies", "ied", "es", "ed", "ly", "s",
    "e", "y",
)  # fmt: skip
# After these a word is singular, so that an s at its end belongs to it.
_SINGULAR = frozenset({"a", "an", "does", "this", "that", "each", "every"})
_OPPOSITE_PREFIXES = ("un", "dis", "in", "im", "il", "ir", "non", "de", "mis", "re", "pre", "post", "sub", "anti", "ab")


@dataclass(frozen=True, slots=True)
class QuestionFacts:
    """What a question says.

    `numbers` and `names` are in the order of the text; `sides` maps an axis to the sides of it that the question names;
    `kinds` are what it asks for (who, when, where, why, count); `content` are its other words, in order, as stems or as
    Chinese characters. `roles` are the words after from, to, than and their like. `tokens` are all words.
    `language` is en, zh, or empty for one whose words are not known here.
    """

    text: str
    tokens: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    units: frozenset[str] = frozenset()
    is_negated: bool = False
    languages: frozenset[str] = frozenset()
    sides: Mapping[int, frozenset[int]] = field(default_factory=dict)
    kinds: frozenset[str] = frozenset()
    content: tuple[str, ...] = ()
    roles: Mapping[str, frozenset[str]] = field(default_factory=dict)
    language: str = ""


def normalised(text: str) -> str:
    """A question in the one form in which equal ones are the same: width, case, spaces, and signs at its end."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return re.sub(r"\s+", " ", folded).strip().rstrip("?!.。？！ ")


@lru_cache(maxsize=512)
def facts(text: str) -> QuestionFacts:
    """Read a question."""
    plain = unicodedata.normalize("NFC", text[:MOST_CHARACTERS]).replace("’", "'")
    if _IDEOGRAPH.search(plain) and not _KANA.search(plain):
        return _chinese(unicodedata.normalize("NFKC", plain))
    for pattern, said in words.TOGETHER.items():
        plain = re.sub(pattern, said, plain)
    return _english(plain)


# English


def _english(text: str) -> QuestionFacts:
    raw = _TOKEN.findall(text)
    names = _names(raw)
    tokens = [token for word in raw for token in _spelled(word)]
    numbers, units, rest = _numbers(tokens)
    kinds = _kinds(tokens)
    if "duration" in kinds:
        units -= _TIMES
    sides: dict[int, set[int]] = {}
    for token in tokens:
        for axis, side in _AXIS.get(_stem(token), ()):
            sides.setdefault(axis, set()).add(side)
    if _SWITCHED & set(tokens):
        sides[_SWITCH] = {int(bool(_OFF & set(tokens)))}
    skip = words.STOP | words.NEGATIONS
    meant = [(token, before) for token, before in zip(rest, ["", *rest], strict=False) if token not in skip]
    content = [token if token.endswith("s") and before in _SINGULAR else meaning(token) for token, before in meant]
    return QuestionFacts(
        text, tuple(tokens), tuple(numbers), tuple(names), frozenset(units), _is_negated(tokens),
        frozenset(words.LANGUAGES & set(tokens)), {axis: frozenset(found) for axis, found in sides.items()},
        frozenset(kinds), tuple(dict.fromkeys(content)), _roles(tokens, names),
        "" if words.FOREIGN & set(tokens) or (not text.isascii() and _OTHER_SCRIPT.search(text)) else ENGLISH,
    )  # fmt: skip


def _names(raw: list[str]) -> list[str]:
    """Words with a capital inside the sentence, with digits, or of one letter."""
    capitals = sum(word[:1].isupper() for word in raw)
    is_title = len(raw) > 3 and capitals > 0.6 * len(raw)
    found = []
    for place, word in enumerate(raw):
        mixed = any(map(str.isdigit, word)) and any(map(str.isalpha, word)) and not _LETTERED.fullmatch(word)
        shouted = word.isupper() and len(word) > 1
        inside = place > 0 and word[0].isupper() and word != "I" and "'" not in word[:2]
        letter = (len(word) == 1 and word.isalpha() and word not in "aAI") or (word == "A" and place > 0)
        inner = any(map(str.isupper, word[1:]))
        if mixed or letter or ((shouted or inside or inner) and not is_title):
            found.append(_joined(word))
    return [name for name in found if name not in _MONTHS and name not in words.LANGUAGES and name not in _UNIT]


def _joined(word: str) -> str:
    """A word without hyphens and the possessive."""
    return re.sub(r"'s?$", "", word.casefold()).replace("-", "").replace("'", "")


def _spelled(word: str) -> Iterator[str]:
    """The words of a token: contractions in full, a number apart from its unit."""
    folded = word.casefold()
    if folded in _SIGNS:
        yield _SIGNS[folded]
    elif folded in words.CONTRACTIONS:
        yield from words.CONTRACTIONS[folded].split()
    elif folded.endswith("n't"):
        yield from (folded[:-3], "not")
    elif (measured := _LETTERED.fullmatch(folded)) and (_joined(measured[2]) in _UNIT or measured[2] == "%"):
        yield from (measured[1], _SIGNS.get(measured[2], measured[2]))
    elif ordinal := re.fullmatch(r"(\d+)(?:st|nd|rd|th)", folded):
        yield ordinal[1]
    else:
        yield from (part for part in [_joined(folded)] if part)


def _numbers(tokens: list[str]) -> tuple[list[str], set[str], list[str]]:
    """The numbers and units of a question, and its other words."""
    numbers: list[str] = []
    units: set[str] = set()
    rest = []
    for place, token in enumerate(tokens):
        before = tokens[place - 1] if place else ""
        if token[0].isdigit() and not any(map(str.isalpha, token)):
            numbers.append(_value(token))
        elif token in _ORDINAL_OR_UNIT and not (before[:1].isdigit() or before in ("per", "a", "each", "every", "one")):
            numbers.append("2")
        elif token == _ONE:
            numbers.append(_ONE)
        elif token in _NUMBER and before not in ("which", "this", "that", "no", "the") | _TEN_WORDS.keys():
            numbers.append(_NUMBER[token])
        elif token in _ORDINAL:
            numbers.append(_ORDINAL[token])
        elif token in _MONTHS and token not in _AMBIGUOUS:
            numbers.append(_MONTHS[token])
        elif before in _TEN_WORDS and token in _NUMBER and numbers:
            numbers[-1] = str(int(numbers[-1]) + int(_NUMBER[token]))
        elif token in _UNIT and (
            before[:1].isdigit() or before in _NUMBER or before in _MEASURING or token in _PERIODS
        ):
            units.add(_UNIT[token])
        else:
            rest.append(token)
    return numbers, units, rest


def _value(number: str) -> str:
    return number.replace(",", "") if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", number) else number.rstrip(".,:")


def _is_negated(tokens: list[str]) -> bool:
    return any(token in words.NEGATIONS for token in tokens)


def _kinds(tokens: list[str]) -> set[str]:
    kinds = {kind for kind, marks in _KINDS.items() if any(token in marks for token in tokens)}
    line = f" {' '.join(tokens)} "
    kinds |= {kind for kind, pattern in _KIND_PHRASES.items() if pattern.search(line)}
    return kinds - {"when"} if tokens[:1] != ["when"] and "date" not in tokens and "time" not in tokens else kinds


_KINDS = {
    "who": {"who", "whom", "whose"}, "when": {"when", "date"}, "where": {"where", "address", "directory", "folder"},
    "why": {"why", "reason", "cause"},
}  # fmt: skip
_KIND_PHRASES = {
    "count": re.compile(r" (?:how many|number of) "),
    "duration": re.compile(r" how (?:long|many (?:seconds|minutes|hours|days|weeks|months|years)) "),
    "price": re.compile(r" (?:how much does .* cost|price|cost) "),
    "distance": re.compile(r" how far "),
    "frequency": re.compile(r" how often "),
}


def _roles(tokens: list[str], names: list[str]) -> dict[str, frozenset[str]]:
    """The words after each preposition of direction, up to the next one."""
    roles: dict[str, set[str]] = {}
    role = ""
    for token in tokens:
        if token in _DIRECTIONS:
            role = token
        elif role and (token in names or token not in words.STOP):
            roles.setdefault(role, set()).add(token)
    return {name: frozenset(found) for name, found in roles.items()}


_DIRECTIONS = frozenset(
    [
        "from",
        "to",
        "into",
        "than",
        "over",
        "before",
        "after",
        "by",
        "instead",
        "versus",
        "vs",
        "against",
        "above",
        "below",
        "under",
    ]
)


def _stem(word: str) -> str:
    """A word without its commonest endings; only for comparison."""
    if len(word) < 4 or not word.isascii() or not word.isalpha():
        return word
    for ending in _ENDINGS:
        least = 4 if ending in ("al", "als", "ion", "ions") else 3
        if word.endswith(ending) and len(word) - len(ending) >= least and not (ending == "s" and word.endswith("ss")):
            word = word[: -len(ending)] + ("i" if ending in ("ies", "ied", "y") else "")
            break
    return re.sub(r"(.)\1$", r"\1", word)


def meaning(word: str) -> str:
    """A stem, or the first of those that mean the same; doubled letters, which are often mistyped, count once."""
    stem = _stem(word)
    return _SYNONYM.get(stem) or re.sub(r"(.)\1", r"\1", stem)


def _table(lines: str, split: str | None = None) -> Iterator[tuple[str, list[str]]]:
    for line in lines.strip().splitlines():
        parts = line.split(split)
        yield parts[0], parts


def _axes(lines: str, form: object) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for axis, line in enumerate(lines.strip().splitlines()):
        for side, alternatives in enumerate(line.split("|")):
            for word in alternatives.split():
                found.setdefault(form(word), []).append((axis, side))  # type: ignore[operator]
    return found


# Verbs that a particle turns round: log in, log out.
_SWITCHED = frozenset({"log", "sign", "turn", "switch", "power", "check", "opt", "zoom", "clock", "plug"})
_OFF = frozenset({"off", "out", "down"})
# The word says little: one licence is a licence.
_ONE = "one"
_SWITCH = -1
_AMBIGUOUS = frozenset({"may", "mar"})
_ORDINAL_OR_UNIT = frozenset({"second"})
_SYNONYM = {
    _stem(word): re.sub(r"(.)\1", r"\1", _stem(first)) for first, line in _table(words.SYNONYMS) for word in line
}
_AXIS = _axes(words.AXES, _stem)
_UNIT = {word: first for first, line in _table(words.UNITS) for word in line} | {"m²": "m2", "ft²": "ft2", "m³": "m3"}
_MEASURING = frozenset({"in", "per", "a", "an", "each", "every", "many", "of"})
_PERIODS = frozenset(
    [
        "daily",
        "weekly",
        "monthly",
        "quarterly",
        "yearly",
        "annual",
        "annually",
        "percent",
        "percentage",
        "euro",
        "dollar",
    ]
)
_TIMES = {"second", "minute", "hour", "day", "week", "month", "year"}
_MONTHS = {word: f"month {number}" for number, line in enumerate(words.MONTHS.split("|"), 1) for word in line.split()}
_TEN_WORDS = {word: str(10 * number) for number, word in enumerate(words.TENS, 2)}
_NUMBER = {word: str(number) for number, word in enumerate(words.CARDINALS)} | _TEN_WORDS | words.OTHER_NUMBERS
_ORDINAL = {word: str(number) for number, word in enumerate(words.ORDINALS, 1) if word != "second"}


def are_opposites(one: str, other: str) -> bool:
    """Whether a word is the other with a prefix that turns it round: mount, unmount."""
    short, long = sorted((one, other), key=len)
    return len(short) > 2 and any(long == prefix + short for prefix in _OPPOSITE_PREFIXES)


# Chinese


def _chinese(text: str) -> QuestionFacts:
    latin = _english(" ".join(_TOKEN.findall(_IDEOGRAPH.sub(" ", text))))
    names = list(latin.names) + [
        _joined(each) for each in re.findall(r"[A-Za-z][\w-]*", text) if _joined(each) not in latin.names
    ]
    folded = text.casefold()
    languages = {_CHINESE_LANGUAGE[each] for each in words.CHINESE_LANGUAGES if each in folded}
    numbers, units, folded = _chinese_numbers(folded)
    for spelled, measure in words.CHINESE_MEASURES.items():
        folded = folded.replace(spelled, measure)
    sides: dict[int, set[int]] = {}
    for word, places in _CHINESE_AXIS.items():
        if word in folded:
            for axis, side in places:
                sides.setdefault(axis, set()).add(side)
    for each in words.CHINESE_YES_NO:
        folded = folded.replace(each, " ")
    calm = folded
    for each in words.CHINESE_NOT_NEGATED:
        calm = calm.replace(each, " ")
    is_negated = any(each in calm for each in words.CHINESE_NEGATIONS if each != "忘")
    kinds, folded = _chinese_kinds(folded)
    roles = {name: frozenset(found[1]) for name, pattern in _CHINESE_ROLES.items() if (found := pattern.search(text))}
    folded = _CHINESE_SYNONYMS.sub(lambda word: _CHINESE_SYNONYM[word[0]], folded)
    for each in words.CHINESE_FILLERS:
        folded = folded.replace(each, " ")
    folded = re.sub(words.CHINESE_AUXILIARY, " ", folded)
    content = tuple(_IDEOGRAPH.findall(folded))
    return QuestionFacts(
        text, tuple(normalised(text)), numbers, tuple(names), frozenset(units) | latin.units, is_negated,
        frozenset(languages) | latin.languages, {axis: frozenset(found) for axis, found in sides.items()},
        frozenset(kinds), content, roles, language=CHINESE,
    )  # fmt: skip


def _chinese_kinds(text: str) -> tuple[set[str], str]:
    kinds = set()
    for kind, marks in words.CHINESE_KINDS.items():
        for mark in sorted(marks.split(), key=len, reverse=True):
            if mark in text:
                kinds.add(kind)
                text = text.replace(mark, " ")
    return kinds - {"what"}, text


_UNIT_PATTERN = "|".join(sorted(words.CHINESE_UNITS, key=len, reverse=True))
_CHINESE_NUMBER = re.compile(rf"(第?)(\d+(?:[.,]\d+)*|[零一二两三四五六七八九十百千万]+)\s*({_UNIT_PATTERN})?")
_PERIOD = re.compile(r"每(?:一|个)*(小时|天|日|周|星期|月|季度|年|晚|夜)")
_BARE_UNITS = re.compile("摄氏度|华氏度|摄氏|华氏|英里|公里|千克|公斤|盎司|英寸|厘米|英尺|美元|欧元|日元|英镑|人民币")
_CHINESE_ROLES = {
    "from": re.compile("(?:从|由)(.+?)(?:到|至|往|寄到|转|改|换|变|向)"),
    "to": re.compile("(?:从|由).+?(?:到|至|往|向|成|为)([^\\s，,？?]{1,6})"),
    "than": re.compile("(?<![相同环对])比(?!例|较)([^\\s，,？?]{1,4})"),
    "object": re.compile("(?:把|将)(.{1,6}?)(?:换|改|转|变|翻译|移|复制)"),
}


def _chinese_numbers(text: str) -> tuple[tuple[str, ...], set[str], str]:
    """The numbers and units, and the text without them."""
    numbers, units = [], set()

    def period(found: re.Match[str]) -> str:
        units.add("每" + words.CHINESE_UNIT_NAMES.get(found[1], found[1]))
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
            digits = _chinese_value(digits)
        if found.start() and re.match(r"[A-Za-z-]", text[found.start() - 1]):
            return found[0]  # a part of a name
        numbers.append(digits.replace(",", ""))
        if unit:
            units.add(words.CHINESE_UNIT_NAMES.get(unit, unit))
        return " "

    text = _CHINESE_NUMBER.sub(number, _PERIOD.sub(period, text))
    bare = _BARE_UNITS.findall(text)
    units.update(words.CHINESE_UNIT_NAMES.get(each, each).removesuffix("度") for each in bare)
    return tuple(numbers), units, _BARE_UNITS.sub(" ", text)


def _chinese_value(digits: str) -> str:
    """十五 -> 15; numbers from 10,000 on stay as they are written."""
    if "万" in digits:
        return digits
    total, current = 0, 0
    for each in digits:
        if each in _SCALES:
            total, current = total + (current or 1) * _SCALES[each], 0
        else:
            current = 2 if each == "两" else words.CHINESE_DIGITS.index(each)
    return str(total + current)


_SCALES = {"十": 10, "百": 100, "千": 1000}
_CHINESE_AXIS = _axes(words.CHINESE_AXES, str)
_CHINESE_SYNONYM = {word: first for first, line in _table(words.CHINESE_SYNONYMS) for word in line}
_CHINESE_SYNONYMS = re.compile("|".join(sorted(_CHINESE_SYNONYM, key=len, reverse=True)))
_CHINESE_LANGUAGE = {each: each.rstrip("语文") for each in words.CHINESE_LANGUAGES}
