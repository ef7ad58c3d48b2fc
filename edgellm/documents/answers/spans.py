"""Finds the places of the sources that a question is about: a few lines that have most of its words, close together.

    best = SpanFinder(question, weights, sources).best()
    best[0].quote, best[0].coverage        # verbatim, and the part of the question's words that stand there

No model is needed, and none can make it up: this says where an answer must stand, whatever a model writes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgellm.documents.answers.evidence import values, word_stems
from edgellm.documents.answers.lines import begins_block, is_heading, is_joined, is_row, line_spans, widened
from edgellm.documents.collection import IndexedChunk
from edgellm.documents.words import has_ideographs

# Characters of a span.
MOST_SPAN = 400
# How many characters around an answer may hold the words of the question.
AROUND = 300
# How much of the question must stand around it: a part of what the best place has, and of the whole.
NEAR, LEAST = 0.7, 0.25
# What a word of the question counts that stands in the title, the heading or the table's header above a line, and one
# that only begins like a word there.
ABOVE = 0.8
ALIKE = 0.8
# Two ideographs beside each other that no chunk has are hardly ever a word.
ACCIDENT = 0.25
# What each passage counts less than the one before; a hundred characters; and words of the title that nobody asked for.
LOWER_RANK = 0.03
LONGER = 0.01
OTHER_TITLE = 0.05
# What a number counts that the question asks for and does not have.
HAS_NUMBER = 0.08
ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|long|often|old|far|high|large|heavy|fast|late|soon)\b|\bwhen\b|\b(?:cost|weigh)s?\b"
    r"|\b(?:what|which) (?:\w+ ){0,3}?(?:time|price|date|year|percentage|port|value|size|rate|fee|number|limit)\b"
    r"|多少|几(?=[个次年月天台小])"
    r"|多[久长大重高]|何时|[哪几](?:一|个)?(?:天|年|月)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Span:
    """A verbatim piece of a source. `coverage` is the part of the question, by weight, that stands there: 0 to 1.

    `words` are those of the question, as stems, that stand there or above.
    """

    source: int
    quote: str
    words: frozenset[str]
    coverage: float
    score: float
    start: int
    end: int

    def overlaps(self, source: int, start: int, end: int) -> bool:
        """Whether it shares text with another place."""
        return self.source == source and self.start < end and start < self.end


def weigh(counts: Mapping[str, int], n_chunks: int) -> dict[str, float]:
    """The weights of a question's words, which are stems: what few chunks have says more.

    Args:
        counts: how many chunks have each word.
        n_chunks: how many there are.
    """
    return {
        word: math.log(1 + n_chunks / (1 + count)) * (ACCIDENT if not count and has_ideographs(word) else 1.0)
        for word, count in counts.items()
    }


class SpanFinder:
    """The spans of some sources that have words of a question."""

    def __init__(self, question: str, weights: Mapping[str, float], sources: Sequence[IndexedChunk]) -> None:
        self._sources = sources
        self._numbers = values(question) if ASKS_NUMBER.search(question) else None
        self._found = [
            span for number, chunk in enumerate(sources) for span in _Source(question, weights, number, chunk).spans()
        ]
        self._found.sort(key=lambda span: (span.score, span.start - span.end), reverse=True)
        self._most = max((span.coverage for span in self._found), default=0.0)

    def best(self, most: int = 3) -> list[Span]:
        """The spans that have most of the question, best first, at different places.

        The lines beside a span belong to it, because the answer may stand there, unless it has the number that is asked
        for.
        """
        chosen: list[Span] = []
        places: list[Span] = []
        for span in self._found:
            if any(place.overlaps(span.source, span.start, span.end) for place in places):
                continue
            places.append(self._with_context(span))
            chosen.append(span if self._has_number(span) else places[-1])
            if len(chosen) == most:
                break
        return chosen

    def _has_number(self, span: Span) -> bool:
        return self._numbers is not None and bool(values(span.quote) - self._numbers)

    def is_near(self, source: int, start: int, end: int) -> bool:
        """Whether what stands at a place may answer the question: enough of its words stand around there."""
        start, end = widened(self._sources[source], start, end, end - start + AROUND)
        return self._coverage(source, start, end) >= max(NEAR * self._most, LEAST)

    def is_source(self, source: int) -> bool:
        """Whether a source has half as much of the question as the best one."""
        return self._coverage(source, 0, len(self._sources[source].text)) >= self._most / 2

    def _coverage(self, source: int, start: int, end: int) -> float:
        return max((span.coverage for span in self._found if span.overlaps(source, start, end)), default=0.0)

    def _with_context(self, span: Span) -> Span:
        """A span with the lines beside it."""
        chunk = self._sources[span.source]
        start, end = widened(chunk, span.start, span.end, MOST_SPAN)
        return replace(span, quote=chunk.text[start:end], start=start, end=end)


class _Source:
    """A chunk with its lines, and what of the question stands in and above each."""

    def __init__(self, question: str, weights: Mapping[str, float], number: int, chunk: IndexedChunk) -> None:
        self._weights, self._number, self._chunk = weights, number, chunk
        self._total = sum(weights.values()) or 1.0
        self._numbers = values(question) if ASKS_NUMBER.search(question) else None
        titled = word_stems(chunk.title)
        self._title = matched(weights, chunk.title)
        self._other = 1 - len(self._title) / max(1, len(titled))
        self._lines = list(line_spans(chunk.text))

    def spans(self) -> Iterator[Span]:
        """The spans from each line that has a word of the question."""
        text, lines = self._chunk.text, self._lines
        words = [matched(self._weights, text[start:end]) for start, end in lines]
        above = self._above(words)
        for first, (start, _) in enumerate(lines):
            if not words[first]:
                continue
            here: dict[str, float] = {}
            _add(here, self._title, ABOVE)
            for last in _reachable(self._chunk, lines, first):
                if not words[last]:
                    continue
                _add(here, words[last], 1.0)
                _add(here, above[last], ABOVE)
                if last == first and is_heading(self._chunk.text, self._lines, first):
                    continue
                yield self._span(here, start, min(lines[last][1], start + MOST_SPAN))

    def _span(self, words: Mapping[str, float], start: int, end: int) -> Span:
        quote = self._chunk.text[start:end]
        coverage = sum(self._weights[word] * part for word, part in words.items()) / self._total
        score = coverage - LOWER_RANK * self._number - LONGER * (end - start) / 100 - OTHER_TITLE * self._other
        if self._numbers is not None and values(quote) - self._numbers:
            score += HAS_NUMBER
        return Span(self._number, quote, frozenset(words), coverage, score, start, end)

    def _above(self, words: Sequence[dict[str, float]]) -> list[dict[str, float]]:
        """For each line the words above it: of its table's header, or of the heading before its block."""
        above: list[dict[str, float]] = []
        header: dict[str, float] = {}
        for at, here in enumerate(words):
            begins = begins_block(self._chunk.text, self._lines, at)
            if begins:
                header = words[at - 1] if at and is_heading(self._chunk.text, self._lines, at - 1) else {}
            above.append(header)
            if begins and is_row(self._line(at)):
                header = here
        return above

    def _line(self, at: int) -> str:
        start, end = self._lines[at]
        return self._chunk.text[start:end]


def _add(words: dict[str, float], more: Mapping[str, float], part: float) -> None:
    for word, weight in more.items():
        words[word] = max(words.get(word, 0.0), part * weight)


def _reachable(chunk: IndexedChunk, lines: Sequence[tuple[int, int]], first: int) -> Iterator[int]:
    """The lines that a quotation from one line on may reach."""
    yield first
    for last in range(first + 1, len(lines)):
        if lines[last][1] - lines[first][0] > MOST_SPAN or not is_joined(chunk, lines, last):
            return
        yield last


def matched(weights: Mapping[str, float], text: str) -> dict[str, float]:
    """The words of the question that stand in a text: 1 for each, less for one that is only alike."""
    there = frozenset(word_stems(text).values())
    found = {word: 1.0 for word in weights if word in there}
    for word in weights:
        if word not in found and word.isascii() and word.isalpha() and any(_alike(word, each) for each in there):
            found[word] = ALIKE
    return found


def _alike(word: str, other: str) -> bool:
    """Whether two words have one root: "weigh" and "weight"."""
    pairs = zip(word, other, strict=False)
    same = next((at for at, (one, two) in enumerate(pairs) if one != two), min(len(word), len(other)))
    return same >= 4 and 3 * same >= 2 * max(len(word), len(other))
