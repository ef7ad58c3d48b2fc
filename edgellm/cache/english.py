"""What an English question says: words are reduced to stems, contractions are spelled out.

english("Is the TB-80 waterproof?").names  ->  ("tb80",)
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgellm.cache import english_words as words
from edgellm.cache.question_facts import ENGLISH, QuestionFacts, axes, table

# Letters beyond the Latin ones.
_OTHER_SCRIPT = re.compile("[\u0370-\u1dff\u2c00-\ua7ff\uac00-\ud7ff\u3040-\u30ff]")
TOKEN = re.compile(r"\d+(?:[.,:]\d+)*[^\W\d_]*[²³]?|[^\W\d_][\w’'+#&-]*(?:\.\w+)*|[%°€$£¥]")
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


def english(text: str) -> QuestionFacts:
    """Read a question in English; for another language only its numbers and names are of use."""
    raw = TOKEN.findall(text)
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
            found.append(joined(word))
    return [name for name in found if name not in _MONTHS and name not in words.LANGUAGES and name not in _UNIT]


def joined(word: str) -> str:
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
    elif (measured := _LETTERED.fullmatch(folded)) and (joined(measured[2]) in _UNIT or measured[2] == "%"):
        yield from (measured[1], _SIGNS.get(measured[2], measured[2]))
    elif ordinal := re.fullmatch(r"(\d+)(?:st|nd|rd|th)", folded):
        yield ordinal[1]
    else:
        yield from (part for part in [joined(folded)] if part)


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


# Verbs that a particle turns round: log in, log out.
_SWITCHED = frozenset({"log", "sign", "turn", "switch", "power", "check", "opt", "zoom", "clock", "plug"})
_OFF = frozenset({"off", "out", "down"})
# The word says little: one licence is a licence.
_ONE = "one"
_SWITCH = -1
_AMBIGUOUS = frozenset({"may", "mar"})
_ORDINAL_OR_UNIT = frozenset({"second"})
_SYNONYM = {
    _stem(word): re.sub(r"(.)\1", r"\1", _stem(first)) for first, line in table(words.SYNONYMS) for word in line
}
_AXIS = axes(words.AXES, _stem)
_UNIT = {word: first for first, line in table(words.UNITS) for word in line} | {"m²": "m2", "ft²": "ft2", "m³": "m3"}
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
