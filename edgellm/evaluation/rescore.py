"""Judges the answers of a log again, by the checks of today's suites, without the model.

again, rescored = rescore(evaluation, suites)
again.suites, rescored.changed, rescored.n_missing
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from edgellm.errors import UsageError
from edgellm.evaluation.checkers import checker
from edgellm.evaluation.compare import ChangedItem
from edgellm.evaluation.evaluation import Evaluation
from edgellm.evaluation.item import Check
from edgellm.evaluation.log import LoggedItem
from edgellm.evaluation.score import suite_scores
from edgellm.evaluation.suite import Suite
from edgellm.progress import Progress, Report, silent


@dataclass(frozen=True, slots=True)
class Rescored:
    """The items whose score is another one now.

    `n_missing` items are no longer in their suite, or ask something else there; the check of the log judged them.
    """

    changed: tuple[ChangedItem, ...]
    n_missing: int


def rescore(evaluation: Evaluation, suites: Iterable[Suite], *, report: Report = silent) -> tuple[Evaluation, Rescored]:
    """Judge every answer of an evaluation again; returns the same answers with new verdicts, and what changed.

    Raises:
        UsageError: the check of an item is wrong.
    """
    today = {(suite.name, item.id): item for suite in suites for item in suite.items}
    items, n_missing = [], 0
    for logged in evaluation.items:
        item = today.get((logged.suite, logged.item))
        is_same = item is not None and item.prompt == logged.messages[-1]["content"]
        n_missing += not is_same
        items.append(_judged(logged, item.check if item is not None and is_same else logged.check))
        report(Progress("judging", len(items), len(evaluation.items), "items"))
    pairs = zip(evaluation.items, items, strict=True)
    changed = [ChangedItem(was, now) for was, now in pairs if was.score != now.score]
    again = replace(evaluation, suites=suite_scores(items), items=tuple(items), path=None)
    return again, Rescored(tuple(changed), n_missing)


def _judged(logged: LoggedItem, check: Check) -> LoggedItem:
    """The item with its verdict by a check; one that could not be asked stays wrong."""
    if logged.finish_reason == "error":
        return logged
    try:
        verdict = checker(check).check(logged.given())
    except UsageError as error:
        what = f"the check of {logged.suite}/{logged.item} is wrong: {error.what}"
        raise UsageError(what, why=error.why, hint=error.hint) from error
    return replace(logged, check=check, seen=verdict.seen, score=verdict.score, why=verdict.why)
