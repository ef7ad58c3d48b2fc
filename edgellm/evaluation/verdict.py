"""What a checker is given, and what it says.

verdict = checker.check(GivenAnswer("It is 51."))
verdict.score, verdict.seen                        # 1.0, "51"
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """A model's answer; `finish_reason` is stop, length or repetition. Times are in seconds."""

    text: str
    finish_reason: str = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A score from 0 (wrong) to 1 (right), what the checker saw in the answer, and why it is not right."""

    score: float
    seen: str = ""
    why: str = ""


class Checker(Protocol):
    """Grades an answer, always the same way; it never asks a model and never raises for any text."""

    def check(self, answer: GivenAnswer) -> Verdict:
        """Grade an answer."""
