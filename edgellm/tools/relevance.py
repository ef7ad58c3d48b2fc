"""Cuts a long result to what fits a question: whole paragraphs, the most relevant ones, in their own order.

short = shortened(page, "When was the bridge built?", count=count_tokens, room=400)
short.text, short.kept, short.left_out
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

from edgellm.documents.words import terms

# Parts are at most this long, in characters: longer paragraphs are cut between sentences, then anywhere.
MOST_PART = 600
# A page of a megabyte is looked through no further.
MOST_TEXT = 1 << 20
GAP = " […] "
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|(?<=[。！？])")


@dataclass(frozen=True, slots=True)
class ShortResult:
    """A text of at most the tokens there was room for; `kept` of its parts are there, `left_out` are not."""

    text: str
    kept: int
    left_out: int


def shortened(text: str, question: str, *, count: Callable[[str], int], room: int) -> ShortResult:
    """The text, or those parts of it that say most about the question; `[…]` stands for what is left out."""
    if len(text) <= 8 * room and count(text) <= room:
        return ShortResult(text, 1, 0)
    parts = _parts(text[:MOST_TEXT])
    scores = _scores(parts, terms(question))
    gap = count(GAP) + 1
    chosen: list[int] = []
    left = room - gap
    for n in sorted(range(len(parts)), key=lambda n: (-scores[n], n)):
        needed = count(parts[n]) + gap
        if needed <= left:
            chosen.append(n)
            left -= needed
        elif not chosen or left < room // 10:
            break
    chosen.sort()
    if not chosen and parts:  # not even one part fits
        return ShortResult(_cut(parts[0], count, room - gap) + GAP.rstrip(), 1, len(parts) - 1)
    lines: list[str] = []
    for before, n in zip([-1, *chosen], chosen, strict=False):
        lines += [GAP.strip()] * (n > before + 1) + [parts[n]]
    return ShortResult(
        "\n".join([*lines, *[GAP.strip()] * (chosen[-1:] != [len(parts) - 1])]), len(chosen), len(parts) - len(chosen)
    )


def _parts(text: str) -> list[str]:
    """Lines and sentences in pieces of at most `MOST_PART` characters."""
    parts: list[str] = []
    for paragraph in filter(str.strip, text.split("\n")):
        piece = ""
        for sentence in _SENTENCE.split(paragraph):
            while len(sentence) > MOST_PART:
                parts += filter(None, [piece])
                piece = ""
                parts.append(sentence[:MOST_PART])
                sentence = sentence[MOST_PART:]
            if piece and len(piece) + len(sentence) > MOST_PART:
                parts.append(piece)
                piece = sentence
            else:
                piece = f"{piece} {sentence}" if piece else sentence
        parts += filter(None, [piece])
    return parts


def _scores(parts: Sequence[str], asked: Sequence[str]) -> list[float]:
    """BM25 of each part for the words of the question; the first part counts a little, as it says what a text is."""
    words = [Counter(terms(part)) for part in parts]
    mean = sum(sum(each.values()) for each in words) / max(1, len(words)) or 1.0
    within = {word: sum(word in each for each in words) for word in asked}

    def score(found: Counter[str]) -> float:
        length = 1.2 * (0.25 + 0.75 * sum(found.values()) / mean)
        return sum(
            log(1 + (len(parts) - within[word] + 0.5) / (within[word] + 0.5))
            * 2.2
            * found[word]
            / (found[word] + length)
            for word in asked
        )

    scores = [score(each) for each in words]
    return [value + (0.1 if n == 0 else 0.0) for n, value in enumerate(scores)]


def _cut(text: str, count: Callable[[str], int], room: int) -> str:
    """The beginning of a text that has at most `room` tokens."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(text[:middle]) <= room else (low, middle - 1)
    return text[:low]
