"""The kinds `endings`, `length`, `language` and `finished`: the form of an answer.

LengthChecker(words=3).check(GivenAnswer("Just three words")).score  ->  1.0
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from edgellm.documents.language import LANGUAGES, language_of
from edgellm.evaluation.checkers.base import MOST_TEXT, CheckerModel, verdict, wrong
from edgellm.evaluation.checkers.plain import folded
from edgellm.evaluation.checkers.sentences import in_lines, in_paragraphs, in_sentences, in_words
from edgellm.evaluation.checkers.words import Word
from edgellm.evaluation.verdict import GivenAnswer, Verdict
from edgellm.run.loops import LoopGuard

Count = Annotated[int, Field(ge=0, le=1_000_000)]
# Characters that are searched for a loop.
MOST_LOOP = 200_000
_UNITS = {"words": in_words, "sentences": in_sentences, "lines": in_lines, "paragraphs": in_paragraphs}
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)
_CLOSES = " \t.,;:!?…。！？，；：、\"'”’»«“‘)]）】」』*_`~"
_REASONS = {
    "length": "it was cut at the most tokens", "time": "it was cut when its time was up",
    "context": "it was cut when the context was full", "interrupted": "it was interrupted",
}  # fmt: skip


class EndingsChecker(CheckerModel):
    """Whether every sentence (or line) ends in this word, before its last mark; `count` is how many there must be."""

    word: Word
    of: Literal["sentence", "line"] = "sentence"
    count: Annotated[int, Field(ge=1, le=10_000)] | None = None

    def check(self, answer: GivenAnswer) -> Verdict:
        """Look at the end of each."""
        split = in_sentences if self.of == "sentence" else in_lines
        parts = split(answer.text[-MOST_TEXT:])
        others = [part for part in parts if not self._is_ended(part)]
        seen = f"{len(parts) - len(others)} of {len(parts)} {self.of}s end in {self.word}"
        if others:
            return wrong(f"this one does not: {others[0]}", seen)
        if self.count is not None and len(parts) != self.count:
            return wrong(f"there are {len(parts)}, {self.count} were asked for", seen)
        return verdict(bool(parts), "it is empty", seen)

    def _is_ended(self, part: str) -> bool:
        end, word = folded(part[-500:]).rstrip(_CLOSES), folded(self.word)
        before = end[: -len(word)][-1:]
        is_whole = not (word[0].isascii() and before.isascii() and before.isalnum())
        return end.endswith(word) and is_whole


class LengthChecker(CheckerModel):
    """How long the answer is: a number, or a range `[least, most]`, of each unit that is named.

    An ideograph is a word. Characters are counted without the space around the answer.
    """

    words: Count | tuple[Count, Count] | None = None
    characters: Count | tuple[Count, Count] | None = None
    sentences: Count | tuple[Count, Count] | None = None
    lines: Count | tuple[Count, Count] | None = None
    paragraphs: Count | tuple[Count, Count] | None = None

    @model_validator(mode="after")
    def _sensible(self) -> LengthChecker:
        if not self._ranges:
            raise ValueError(f"one of {', '.join(type(self).model_fields)} is needed")
        if any(least > most for least, most in self._ranges.values()):
            raise ValueError("a range is [least, most]")
        return self

    @property
    def _ranges(self) -> dict[str, tuple[int, int]]:
        given = {unit: getattr(self, unit) for unit in type(self).model_fields}
        ranges = {unit: (each, each) if isinstance(each, int) else each for unit, each in given.items()}
        return {unit: each for unit, each in ranges.items() if each is not None}

    def check(self, answer: GivenAnswer) -> Verdict:
        """Count each unit."""
        text = answer.text[:MOST_TEXT].strip()
        counts = {unit: len(_UNITS[unit](text)) if unit in _UNITS else len(text) for unit in self._ranges}
        faults = [
            f"{least}{'' if least == most else f' to {most}'} {unit} were asked for"
            for unit, (least, most) in self._ranges.items()
            if not least <= counts[unit] <= most
        ]
        return verdict(not faults, "; ".join(faults), ", ".join(f"{count} {unit}" for unit, count in counts.items()))


class LanguageChecker(CheckerModel):
    """Whether the answer is in this language; code and addresses do not count."""

    language: str

    @field_validator("language")
    @classmethod
    def _known(cls, language: str) -> str:
        if language not in LANGUAGES:
            raise ValueError(f"the languages are {', '.join(LANGUAGES)}")
        return language

    def check(self, answer: GivenAnswer) -> Verdict:
        """Judge by script and by small words."""
        text = _CODE.sub(" ", answer.text[:MOST_TEXT])
        found = language_of(text)
        is_right = found == self.language or (self.language == "zh" and found in ("zh-hans", "zh-hant"))
        return verdict(is_right, f"{self.language} was asked for", found or "no language")


class FinishedChecker(CheckerModel):
    """Whether the model ended its answer by itself, and did not go round in circles."""

    def check(self, answer: GivenAnswer) -> Verdict:
        """Look at the reason it ended for, and for a loop if it was cut."""
        if answer.finish_reason == "stop":
            return verdict(bool(answer.text.strip()), "it is empty", answer.text[-100:])
        if answer.finish_reason == "repetition" or _loops(answer.text[-MOST_LOOP:]):
            return wrong("it repeats itself without end", answer.text[-100:])
        return wrong(_REASONS.get(answer.finish_reason, f"it ended by {answer.finish_reason}"), answer.text[-100:])


def _loops(text: str) -> bool:
    """Whether a text goes round in circles; its words stand for tokens."""
    guard, numbers = LoopGuard(), dict[str, int]()
    pieces = re.findall(r"\s+|\w+|[^\w\s]", text)
    return any(guard.feed(numbers.setdefault(piece, len(numbers)), piece) is not None for piece in pieces)
