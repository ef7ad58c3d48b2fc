"""The kinds `contains`, `keywords`, `set` and `pattern`: which words an answer has.

ContainsChecker(all=("Paris",)).check(GivenAnswer("It is Paris.")).score  ->  1.0

Words are compared without case, width and Markdown. A word of letters must stand alone: "art" is not in "party".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Annotated

from pydantic import Field, model_validator

from edgellm.engine.grammar.validation import SchemaTooSlow, find
from edgellm.errors import UsageError
from edgellm.evaluation.checkers.base import MOST_TEXT, CheckerModel, right, verdict, wrong
from edgellm.evaluation.checkers.numerals import exact, numbers
from edgellm.evaluation.checkers.plain import folded, is_denied, plain, stated
from edgellm.evaluation.verdict import GivenAnswer, Verdict

Word = Annotated[str, Field(min_length=1, max_length=200)]
# A word, or several of which any one will do.
OneOf = Word | Annotated[tuple[Word, ...], Field(min_length=1, max_length=50)]
Words = Annotated[tuple[Word, ...], Field(max_length=100)]
# Entries of a list that are compared, and characters of each.
MOST_ENTRIES = 1000
MOST_ENTRY = 500
# Occurrences of a word that are looked at.
MOST_PLACES = 10_000
_ENDED = re.compile(r"[,，、;；\n]+|\s(?:and|&|or)\s|(?<=[^\x00-\x7f])[和及与](?=[^\x00-\x7f])")
_BULLET = re.compile(r"^\s*(?:[-*•]\s|\(?[0-9]{1,3}[.):、](?![0-9]))\s*")
_AND = re.compile(r"^\s*(?:(?:and|or)\s|以及|[和及])\s*", re.IGNORECASE)


def places(word: str, text: str) -> Iterator[tuple[int, int]]:
    """Where a word stands in a text; both are compared without case."""
    return (found.span() for found in islice(_matcher(word).finditer(text), MOST_PLACES))


@lru_cache(maxsize=1024)
def _matcher(word: str) -> re.Pattern[str]:
    parts = r"\s+".join(map(re.escape, plain(word).replace("’", "'").split()))
    # Ideographs have no spaces around them: only letters of our kind end a word.
    before, after = ("(?<![a-zA-Z0-9_à-ÿ])" if parts[:1].isalnum() and parts[0] < "\u0250" else ""), ""
    if parts[-1:].isalnum() and parts[-1] < "\u0250":
        after = "(?![a-zA-Z0-9_à-ÿ])"
    return re.compile(f"{before}{parts}{after}", re.IGNORECASE)


class ContainsChecker(CheckerModel):
    """Whether the answer says `all` of these words, one of `any`, and none of `none`.

    An entry of `all` may be a list of spellings of which one is enough. A word directly after a "not" is not said.
    """

    all: Annotated[tuple[OneOf, ...], Field(max_length=100)] = ()
    any: Words = ()
    none: Words = ()

    @model_validator(mode="after")
    def _asks_for_something(self) -> ContainsChecker:
        if not (self.all or self.any or self.none):
            raise ValueError("all, any or none is needed")
        return self

    def check(self, answer: GivenAnswer) -> Verdict:
        """Look for the words."""
        text = folded(answer.text)
        wanted = [(each,) if isinstance(each, str) else each for each in self.all] + ([self.any] if self.any else [])
        missing = [" or ".join(each) for each in wanted if not any(_says(word, text) for word in each)]
        excess = [word for word in self.none if _says(word, text)]
        if missing or excess:
            faults = [f"{', '.join(missing)} is missing"] * bool(missing)
            faults += [f"{', '.join(excess)} must not be there"] * bool(excess)
            return wrong("; ".join(faults), text[:100])
        return right(", ".join(word for each in wanted for word in each if _says(word, text)) or text[:100])


class KeywordsChecker(CheckerModel):
    """Whether the words of `present` are there, those of `absent` are not, and those of `times` so many times."""

    present: Words = ()
    absent: Words = ()
    times: dict[Word, Annotated[int, Field(ge=0, le=MOST_PLACES)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _asks_for_something(self) -> KeywordsChecker:
        if not (self.present or self.absent or self.times):
            raise ValueError("present, absent or times is needed")
        return self

    def check(self, answer: GivenAnswer) -> Verdict:
        """Count the words."""
        text = folded(answer.text)
        counts = {word: sum(1 for _ in places(word, text)) for word in (*self.present, *self.absent, *self.times)}
        faults = [f"{word} is missing" for word in self.present if not counts[word]]
        faults += [f"{word} must not be there" for word in self.absent if counts[word]]
        faults += [f"{word} must come {n} times" for word, n in self.times.items() if counts[word] != n]
        return verdict(not faults, "; ".join(faults), ", ".join(f"{word}: {n}" for word, n in counts.items()))


class SetChecker(CheckerModel):
    """Whether the answer lists these values, in any order, and no others.

    Numbers are compared as numbers. The list is what follows words that announce an answer, else the list of bulleted
    lines, else the last line. With `others`, words that are not right, the answer may say anything around the list.
    """

    values: Annotated[tuple[OneOf | int | float, ...], Field(min_length=1, max_length=200)]
    others: Words = ()

    def check(self, answer: GivenAnswer) -> Verdict:
        """Compare the lists."""
        if self.others:
            spellings = tuple(str(value) if isinstance(value, (int, float)) else value for value in self.values)
            return ContainsChecker(all=spellings, none=self.others).check(answer)
        listed = _listed(plain(answer.text))
        if all(isinstance(value, (int, float)) for value in self.values):
            return self._check_numbers(listed)
        said = {folded(part).strip(" .。'\"“”()[]{}") for part in listed} - {""}
        wanted = [
            {folded(str(word)) for word in ((each,) if not isinstance(each, tuple) else each)} for each in self.values
        ]
        missing = [min(words) for words in wanted if not words & said]
        excess = said - set().union(*wanted)
        return _compared(missing, sorted(excess), ", ".join(listed))

    def _check_numbers(self, listed: list[str]) -> Verdict:
        wanted = {exact(str(value)) for value in self.values}
        found = {each.value for part in listed for each in numbers(part)}
        return _compared(sorted(map(str, wanted - found)), sorted(map(str, found - wanted)), ", ".join(listed))


class PatternChecker(CheckerModel):
    """Whether a regular expression (ECMA's, as in JSON schemas) matches somewhere, or the `whole` answer."""

    pattern: Annotated[str, Field(min_length=1, max_length=2000)]
    whole: bool = False

    @model_validator(mode="after")
    def _readable(self) -> PatternChecker:
        try:
            find(self._searched, "")
        except UsageError as error:
            raise ValueError(f"it is no regular expression: {error.why}") from None
        return self

    @property
    def _searched(self) -> str:
        return f"^(?:{self.pattern})$" if self.whole else self.pattern

    def check(self, answer: GivenAnswer) -> Verdict:
        """Search, for a bounded time."""
        text = answer.text[-MOST_TEXT:].strip()
        try:
            found = find(self._searched, text)
        except SchemaTooSlow:
            return wrong("the pattern takes too long on this answer", text[:100])
        return wrong(f"it does not match {self.pattern}", text[:100]) if found is None else right(found)


def _says(word: str, text: str) -> bool:
    """Whether a text says a word somewhere without a "not" before it."""
    return any(not is_denied(text, start) for start, _ in places(word, text))


def _listed(text: str) -> list[str]:
    """The entries of the list that an answer gives."""
    lines = [line for line in text.split("\n") if line.strip()]
    bulleted = [line for line in lines if _BULLET.match(line)]
    if len(bulleted) > 1:
        parts = bulleted[:MOST_ENTRIES]
    else:
        rest = stated(text) or (lines[-1].rpartition(":")[2] if lines else "")
        parts = _ENDED.split(rest.strip(" {}[]()。."), MOST_ENTRIES)
    return [entry for part in parts if (entry := _AND.sub("", _BULLET.sub("", part[:MOST_ENTRY])).strip(" ,，;；"))]


def _compared(missing: list[str], excess: list[str], seen: str) -> Verdict:
    faults = [f"{', '.join(missing)} is missing"] * bool(missing)
    faults += [f"{', '.join(excess)} is too much"] * bool(excess)
    return verdict(not faults, "; ".join(faults), seen)
