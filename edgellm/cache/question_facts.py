"""What a question says that a similar one must say too, and how the lists of words are read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

ENGLISH, CHINESE = "en", "zh"


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


def table(lines: str) -> Iterator[tuple[str, list[str]]]:
    """Each line's first word, and all of its words."""
    for line in lines.strip().splitlines():
        parts = line.split()
        yield parts[0], parts


def axes(lines: str, form: Callable[[str], str]) -> dict[str, list[tuple[int, int]]]:
    """The axes on which a word stands, and its side on each; `form` is what words are compared by."""
    found: dict[str, list[tuple[int, int]]] = {}
    for axis, line in enumerate(lines.strip().splitlines()):
        for side, alternatives in enumerate(line.split("|")):
            for word in alternatives.split():
                found.setdefault(form(word), []).append((axis, side))
    return found
