"""Scores of items, with how sure they are: by suite, category, language and pass.

    suite_scores(items)[0].total.score, suite_scores(items)[0].total.low

Beside right and wrong every group has what went on while its answers were written: loops, answers that were cut off,
tokens per second, time to the first token. So a suite about loops or speed needs nothing of its own.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edgellm.evaluation.log import LoggedItem
from edgellm.run.loops import LoopGuard

# The 97.5th percentile of the normal distribution: intervals hold with 95 %.
Z = 1.959963984540054
_PIECES = re.compile(r"\s?[a-zA-Z0-9]{1,5}|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class GroupScore:
    """The mean score of `n_items` answers, from 0 to 1, with its 95 % interval by Wilson from `low` to `high`.

    `n_right` have the full score. `n_failed` could not be asked, and count as wrong. `n_loops` repeated themselves
    endlessly, `n_cut` ended at their limit of tokens. `rate` is the median of an answer's tokens per second, `ttft`
    the median of the seconds to its first token; both are None without answers.
    """

    name: str
    n_items: int
    n_right: int
    score: float
    low: float
    high: float
    n_failed: int
    n_loops: int
    n_cut: int
    prompt_tokens: int
    completion_tokens: int
    rate: float | None
    ttft: float | None


@dataclass(frozen=True, slots=True)
class SuiteScore:
    """A suite's score as a whole (`total`), and by category, language and pass; a group of one kind is left out."""

    name: str
    total: GroupScore
    categories: tuple[GroupScore, ...] = ()
    languages: tuple[GroupScore, ...] = ()
    passes: tuple[GroupScore, ...] = ()


@dataclass(frozen=True, slots=True)
class BelowFloor:
    """A suite whose score is below the one that was asked for."""

    suite: str
    score: float
    least: float


def below_floor(suites: Iterable[SuiteScore], least: float) -> tuple[BelowFloor, ...]:
    """The suites that score less than `least`, from 0 to 1."""
    return tuple(BelowFloor(each.name, each.total.score, least) for each in suites if each.total.score < least)


def suite_scores(items: Iterable[LoggedItem]) -> tuple[SuiteScore, ...]:
    """The score of each suite, in the order of the items."""
    return tuple(_suite_score(name, group) for name, group in _grouped(items, lambda item: item.suite))


def _suite_score(name: str, items: Sequence[LoggedItem]) -> SuiteScore:
    return SuiteScore(
        name,
        group_score(name, items),
        _parts(items, lambda item: item.category),
        _parts(items, lambda item: item.language),
        _parts(items, lambda item: item.pass_name),
    )


def _parts(items: Sequence[LoggedItem], name_of: Callable[[LoggedItem], str]) -> tuple[GroupScore, ...]:
    groups = _grouped(items, name_of)
    return tuple(group_score(name, group) for name, group in groups) if len(groups) > 1 else ()


def _grouped(
    items: Iterable[LoggedItem], name_of: Callable[[LoggedItem], str]
) -> list[tuple[str, Sequence[LoggedItem]]]:
    groups: dict[str, list[LoggedItem]] = {}
    for item in items:
        groups.setdefault(name_of(item), []).append(item)
    return list(groups.items())


def group_score(name: str, items: Sequence[LoggedItem]) -> GroupScore:
    """The score of some items, of which there is at least one."""
    score = math.fsum(item.score for item in items) / len(items)
    low, high = wilson(score, len(items))
    rates = [(item.completion_tokens - 1) / item.decode_seconds for item in items
             if item.completion_tokens > 1 and item.decode_seconds > 0]  # fmt: skip
    waits = [item.prefill_seconds for item in items if item.prefill_seconds > 0]
    return GroupScore(
        name,
        len(items),
        n_right=sum(item.is_right for item in items),
        score=score,
        low=low,
        high=high,
        n_failed=sum(item.finish_reason == "error" for item in items),
        n_loops=sum(map(loops, items)),
        n_cut=sum(item.finish_reason == "length" for item in items),
        prompt_tokens=sum(item.prompt_tokens for item in items),
        completion_tokens=sum(item.completion_tokens for item in items),
        rate=statistics.median(rates) if rates else None,
        ttft=statistics.median(waits) if waits else None,
    )


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share that was seen in `n` trials.

    By Wilson, Probable inference (1927): unlike the normal interval it is right for few items and near 0 and 1. For
    scores between 0 and 1 it is somewhat too wide, as their variance is at most share * (1 - share).
    """
    square = Z * Z / n
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / n + square / 4 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def loops(item: LoggedItem) -> bool:
    """Whether an answer repeated itself endlessly: the guard stopped it, or would have."""
    if item.finish_reason != "length":
        return item.finish_reason == "repetition"
    return find_loop(item.answer)


def find_loop(text: str) -> bool:
    """Whether the guard finds a loop in a finished text; its tokens are no longer known, so similar pieces must do."""
    guard = LoopGuard()
    return any(guard.feed(hash(piece), piece) for piece in _PIECES.findall(text))
