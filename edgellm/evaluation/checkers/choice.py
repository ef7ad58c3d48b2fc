"""The kind `choice`: the answer names one of several choices, and it is the right one.

ChoiceChecker(answer="B").check(GivenAnswer("The answer is (B).")).score  ->  1.0
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, model_validator

from edgellm.evaluation.checkers.base import CheckerModel, verdict, wrong
from edgellm.evaluation.checkers.plain import is_denied, plain, stated
from edgellm.evaluation.checkers.words import Word, places
from edgellm.evaluation.verdict import GivenAnswer, Verdict

Spellings = Annotated[tuple[Word, ...], Field(min_length=1, max_length=20)]
# A letter that stands alone, and is no article or pronoun: "B", "(B)", "B.", "选B".
_LETTER = re.compile(r"(?<![A-Za-z0-9'])[A-Za-z](?![A-Za-z0-9'])")
_ARTICLE = re.compile(r"[Aa]\s+(?!or\b|and\b|is\b|because\b|since\b)[a-z]|I\s+[a-z]|I,|[a-z]\s")
# The end of the first sentence or line.
_END = re.compile(r"[.。!！?？;；,，\n]|\bbecause\b|因为")


class ChoiceChecker(CheckerModel):
    """Whether the answer names the choice `answer` and no other one.

    Choices are letters (A to D), words such as yes and no, or a table of spellings for each. The choice is looked for
    after words that announce an answer, then in the first clause, then anywhere.
    """

    answer: Word
    choices: tuple[Word, ...] | dict[Word, Spellings] = ("A", "B", "C", "D")

    @model_validator(mode="after")
    def _has_the_answer(self) -> ChoiceChecker:
        if self.answer not in self._spellings:
            raise ValueError(f"{self.answer[:40]!r} is none of the choices {', '.join(self._spellings)[:200]}")
        return self

    def check(self, answer: GivenAnswer) -> Verdict:
        """Find the choice and compare it."""
        text = plain(answer.text)
        for part in self._parts(text):
            named = self._named(part)
            if len(named) == 1:
                return verdict(named == {self.answer}, f"{self.answer} is right", named.pop())
            if named and part is not text:
                return wrong("it names several choices", " ".join(sorted(named)))
        return wrong(f"it names no single choice, {self.answer} is right", text[:100])

    @property
    def _spellings(self) -> dict[str, tuple[str, ...]]:
        if isinstance(self.choices, dict):
            return {name: (name, *spellings) for name, spellings in self.choices.items()}
        return {name: (name,) for name in self.choices}

    def _parts(self, text: str) -> Iterator[str]:
        """The parts of the answer that may name the choice, the most telling first."""
        if line := stated(text):
            yield from dict.fromkeys([_END.split(line.lstrip(" .,:："), maxsplit=1)[0], line])
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        yield from (line for line in reversed(lines) if len(line.strip(" ().:")) == len(self.answer) == 1)
        for line in lines[:1] + lines[-1:]:
            yield _END.split(line, maxsplit=1)[0]
        yield text

    def _named(self, text: str) -> set[str]:
        """The choices that a text names and does not deny."""
        found = [
            (start, end, name)
            for name, spellings in self._spellings.items()
            for spelling in spellings
            for start, end in _places(spelling, text)
        ]
        # 不是 holds 是: the longer spelling counts.
        longest = [
            each
            for each in found
            if not any(o[0] <= each[0] and each[1] <= o[1] and o[1] - o[0] > each[1] - each[0] for o in found)
        ]
        return {name for start, _, name in longest if not is_denied(text, start)}


def _places(spelling: str, text: str) -> Iterator[tuple[int, int]]:
    if len(spelling) > 1 or not (spelling.isascii() and spelling.isalpha()):
        yield from places(spelling, text)
        return
    for found in _LETTER.finditer(text):
        is_choice = found[0].upper() == spelling.upper() and not _ARTICLE.match(text, found.start())
        if is_choice and (found[0].isupper() or text[found.end() : found.end() + 1] in ("", ")", ".", ":")):
            yield found.span()
