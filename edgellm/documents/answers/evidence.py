"""Checks an answer against its sources: which words of them bear each claim, and which numbers stand nowhere.

    checked = check("The warranty is 24 months.", sources, question)
    checked.claims[0].evidence.quote      # verbatim from the source

No model judges here. A claim is borne by a sentence (or a row, a line) of a source that has most of its words and all
its numbers; the quotation is that sentence as it stands in the document.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edgellm.documents.answers.lines import is_joined, line_spans
from edgellm.documents.collection import IndexedChunk
from edgellm.documents.words import UNSPACED, has_ideographs, normal, terms

# The part of a claim's words, by weight, that a sentence must have to bear it.
ENOUGH = 0.7
# Numbers say more than words.
NUMBER_WEIGHT = 3.0
MOST_QUOTE = 400
_CLAIM = re.compile(r"(?<=[.!?])\s+(?=[^\s])|(?<=[。！？])|\n+")
_NO_LETTERS = re.compile(r"[\W_]+")
_NO_CLAIM = re.compile(r"\W*(?:\d{1,2}[.)])?\W*")
# A letter, a digit or "_", but for the scripts in which a number has no space around it: 保修6年.
_JOINED = rf"[^\W{UNSPACED}]"
_NUMBER = re.compile(rf"(?<!{_JOINED})(?<![.,])[-+−]?\d+(?:[.,]\d+)*(?!{_JOINED})")
_CODE = r"(?<![\w-])(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[A-Za-z\d][\w-]+|(?<![\w.])\d+(?:\.\d+)+(?![\w.])|\b[A-Z]{2,}\b"
_NAME = re.compile(rf"(?<=[\w,] )[A-Z][\w-]*[a-z][\w-]*|{_CODE}")
# Among ideographs, what is written in Latin letters is the name of something.
_FOREIGN = re.compile(rf"{_CODE}|[A-Za-z][A-Za-z.-]*[A-Za-z]", re.ASCII)
# What is written in digits and signs, or in letters and digits, is one thing; a number has a unit.
_CODES = re.compile(r"(?<![\w-])(?=[\w-]*\d)\w+(?:[-/:_]\w+)+|(?<![\w.])\d+(?:\.\d+){2,}")
_UNIT = re.compile(r"(?<![\w.,-])(\d+(?:[.,]\d+)*)[ -]?([a-z]+)\b")
_MARK = re.compile(r"\s*\[\d{1,2}(?:\s*,\s*\d{1,2})*\]")
_NEGATION = re.compile(r"\b(?:not|no|never|none|neither|nor|without|cannot)\b|n['’]t\b|[不没未无非勿]", re.IGNORECASE)
_REFUSAL = re.compile(
    r"\bnot (?:found|stated|mentioned|given|specified|available|provided) in (?:the |these |this |any )?"
    r"(?:documents?|sources?|context|text|passages?)\b"
    r"|\b(?:sources?|documents?|context|text|passages?) (?:do|does)(?: not|n['’]t) "
    r"(?:say|mention|contain|include|state|give)\b"
    r"|\bno (?:information|mention|answer)\b|\b(?:cannot|can['’]t|could not|couldn['’]t) (?:find|answer|be found)\b"
    r"|找不到|未找到|没有(?:找到|提到|提及|说明)|未(?:提及|提到|说明)|无法(?:回答|找到)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A verbatim piece of a source; `source` numbers the sources from 0, `start` is its place in that one's text.

    `is_whole`: the claim stands there word for word.
    """

    source: int
    quote: str
    start: int
    is_whole: bool = field(default=True, compare=False)

    @property
    def place(self) -> tuple[int, int, int]:
        """The source, and where in it the quotation begins and ends."""
        return self.source, self.start, self.start + len(self.quote)


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of an answer; without `evidence` nothing in the sources bears it."""

    text: str
    evidence: Evidence | None


@dataclass(frozen=True, slots=True)
class CheckedAnswer:
    """An answer after the check. `unknown_numbers` stand in the answer and in none of the sources.

    `repeats`: it says a sentence twice.
    """

    claims: list[Claim]
    unknown_numbers: list[str]
    is_refusal: bool
    repeats: bool


def check(answer: str, sources: Sequence[IndexedChunk], question: str) -> CheckedAnswer:
    """Look for the evidence of each claim of an answer."""
    text = _MARK.sub("", answer)
    checker = _Checker(sources, question)
    said = _claims(text)
    claims = [Claim(claim, checker.evidence(claim)) for claim in dict.fromkeys(said)]
    everywhere = values(" ".join([*(each.text for each in sources), question]))
    unknown = [number for number in dict.fromkeys(numbers(text)) if _value(number) not in everywhere]
    is_refusal = bool(_REFUSAL.search(text)) and not any(claim.evidence for claim in claims)
    return CheckedAnswer(claims, unknown, is_refusal or not text.strip(), len(claims) < len(said))


def _claims(text: str) -> list[str]:
    """The sentences of an answer; the number of a list's item is none."""
    pieces = (piece.strip() for piece in _CLAIM.split(text))
    return [piece for piece in pieces if not _NO_CLAIM.fullmatch(piece)]


@dataclass(frozen=True, slots=True)
class _Piece:
    """A line of a source, or two, and what stands there. `words` are also those of the source's title."""

    source: int
    text: str
    start: int
    is_pair: bool
    words: frozenset[str]
    numbers: frozenset[str]
    denies: bool

    def has(self, number: str, unit: str) -> bool:
        """Whether a number stands here with its unit, in full or short ("h"), or in a column without one."""
        units = [each for value, each in _UNIT.findall(normal(self.text)) if _value(value) == _value(number)]
        return not units or any(_stem(each) == _stem(unit) or unit.startswith(each) for each in units)


class _Checker:
    """Finds what bears a claim among the lines of sources."""

    def __init__(self, sources: Sequence[IndexedChunk], question: str) -> None:
        self._asked = _words(question)
        self._pieces = [
            _Piece(
                at, text, start, is_pair, _words(f"{text} {source.title}"), frozenset(values(text)), is_negated(text)
            )
            for at, source in enumerate(sources)
            for text, start, is_pair in _quotable(source)
        ]
        often = Counter(word for piece in self._pieces for word in piece.words)
        self._rarity = {word: math.log(1 + len(self._pieces) / count) for word, count in often.items()}

    def evidence(self, claim: str) -> Evidence | None:
        """The line that bears a claim best; None if nothing bears it."""
        words, stated, denies = _words(claim), values(claim), is_negated(claim)
        codes, measures = _CODES.findall(normal(claim)), _UNIT.findall(normal(claim))
        weighed = [
            (self._borne(words, piece), piece)
            for piece in self._pieces
            if stated <= piece.numbers
            and denies == piece.denies
            and all(code in normal(piece.text) for code in codes)
            and all(piece.has(*measure) for measure in measures)
        ]
        weight, best = max(weighed, key=lambda each: self._rank(*each), default=(0.0, None))
        if best is None or weight < ENOUGH:
            return None
        return Evidence(best.source, best.text, best.start, _letters(claim) in _letters(best.text))

    def _rank(self, weight: float, piece: _Piece) -> tuple[float, bool, int, int]:
        """Of pieces that bear a claim alike, one sentence is best, and one about the question."""
        return round(weight, 1), not piece.is_pair, len(self._asked & piece.words), -len(piece.text)

    def _borne(self, claimed: frozenset[str], piece: _Piece) -> float:
        """The part of a claim that stands in a piece, 0 to 1; it must be there without the question's words, too."""
        return min(self._part(claimed, piece), self._part(claimed - self._asked or claimed, piece))

    def _part(self, words: frozenset[str], piece: _Piece) -> float:
        total = sum(self._weight(word) for word in words)
        return sum(self._weight(word) for word in words & piece.words) / (total or 1)

    def _weight(self, word: str) -> float:
        return self._rarity.get(word, 1.0) * (NUMBER_WEIGHT if word[0].isdigit() else 1.0)


def _quotable(chunk: IndexedChunk) -> Iterator[tuple[str, int, bool]]:
    """The lines of a source with their places, and each with the next one (true): a sentence may go on there."""
    text, lines = chunk.text, list(line_spans(chunk.text))
    for number, (start, end) in enumerate(lines):
        yield text[start : min(end, start + MOST_QUOTE)], start, False
        if number + 1 < len(lines) and is_joined(chunk, lines, number + 1):
            pair = text[start : lines[number + 1][1]]
            if len(pair) <= MOST_QUOTE:
                yield pair, start, True


def numbers(text: str) -> list[str]:
    """The numbers of a text, as they are written."""
    return _NUMBER.findall(normal(text))


def values(text: str) -> set[str]:
    """The numbers of a text, each in one form."""
    return {_value(number) for number in numbers(text)}


def names(question: str) -> list[str]:
    """The names in a question: capitals within it, letters mixed with digits, versions, Latin words among others."""
    pattern = _FOREIGN if has_ideographs(question) else _NAME
    return list(dict.fromkeys(pattern.findall(question)))


def word_stems(text: str) -> dict[str, str]:
    """The words of a text that mean something, each with its stem; numbers are in one form."""
    return {word: _stem(word) for word in terms(_NUMBER.sub(lambda number: f" {_value(number[0])} ", normal(text)))}


def _words(text: str) -> frozenset[str]:
    return frozenset(word_stems(text).values())


def _stem(word: str) -> str:
    """A word without the commonest English endings."""
    for ending in ("ing", "ies", "es", "ed", "s"):
        if len(word) > len(ending) + 3 and word.endswith(ending) and word.isascii():
            return word.removesuffix(ending)
    return word


def _letters(text: str) -> str:
    return _NO_LETTERS.sub("", normal(text))


def is_negated(text: str) -> bool:
    """Whether a text says that something is not so."""
    return bool(_NEGATION.search(text))


def _value(number: str) -> str:
    """A number in one form: 1,389.00 and 1389 are the same."""
    plain = number.replace("−", "-").lstrip("+")
    if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", plain):
        plain = plain.replace(",", "")
    return re.sub(r"\.0+$", "", plain)
