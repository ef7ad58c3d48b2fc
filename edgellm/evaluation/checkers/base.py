"""What all kinds of checks share: a class whose fields are the parameters, and the two verdicts.

class LuckyChecker(CheckerModel): ...
right("7")  ->  Verdict(1.0, "7")
"""

from __future__ import annotations

from abc import abstractmethod

from edgellm.evaluation.verdict import GivenAnswer, Verdict
from edgellm.models.sampling_fields import StrictModel

# Characters of an answer that are read: its end, where conclusions stand.
MOST_TEXT = 1_000_000
# Characters of what a verdict shows.
MOST_SEEN = 300


class CheckerModel(StrictModel):
    """A kind of check; its fields are the parameters that a suite gives."""

    @abstractmethod
    def check(self, answer: GivenAnswer) -> Verdict:
        """Grade an answer."""


def right(seen: object = "") -> Verdict:
    """The verdict on a right answer."""
    return Verdict(1.0, shown(seen))


def wrong(why: str, seen: object = "") -> Verdict:
    """The verdict on a wrong answer."""
    return Verdict(0.0, shown(seen), shown(why))


def verdict(is_right: bool, why: str, seen: object = "") -> Verdict:
    """Right, or wrong for that reason."""
    return right(seen) if is_right else wrong(why, seen)


def shown(value: object) -> str:
    """A value as a verdict shows it: one line of bounded length."""
    text = " ".join(str(value)[: 2 * MOST_SEEN].split())
    return text if len(text) <= MOST_SEEN else text[: MOST_SEEN - 1] + "…"
