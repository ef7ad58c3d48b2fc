"""An evaluation for people: scores with their intervals, what a comparison found, and the list of suites.

show_scores(evaluation)
show_comparison(comparison)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgellm.evaluation.compare import ChangedItem, Comparison, PairedScore
from edgellm.evaluation.evaluation import Evaluation
from edgellm.evaluation.rescore import Rescored
from edgellm.evaluation.score import GroupScore, SuiteScore
from edgellm.evaluation.suite import SuiteList
from edgellm.ui.console import note, print_line, print_table
from edgellm.ui.quality_table import print_quality
from edgellm.units import duration, rate

HEADERS = ("SUITE", "SCORE", "95 %", "ITEMS", "LOOPS", "CUT OFF", "TOK/S", "FIRST TOKEN")
PAIRED = ("SUITE", "SCORE", "BASE", "CHANGE", "95 %", "ITEMS", "GAINED", "LOST", "P")
# Of the items that changed, how many the terminal shows each way, and how much of an answer.
MOST_SHOWN = 5
MOST_OF_ANSWER = 60


def percent(share: float) -> str:
    """A share as people read it: 83.3 %."""
    return f"{100 * share:.1f} %"


def show_scores(found: Evaluation) -> None:
    """Print a row a suite; of a single suite also its categories, languages and passes."""
    rows = [row for suite in found.suites for row in _rows(suite, whole=len(found.suites) == 1)]
    print_table(HEADERS, rows, right=range(1, 8), spare=("CUT OFF", "LOOPS", "FIRST TOKEN", "TOK/S"))
    failed = [item for item in found.items if item.finish_reason == "error"]
    if failed:
        first = failed[0]
        note(f"without an answer, and counted as wrong: {len(failed):,}; {first.suite}/{first.item}: {first.why}")


def _rows(suite: SuiteScore, *, whole: bool) -> list[tuple[str, ...]]:
    groups = [*suite.categories, *suite.languages] if whole else []
    return [_row(suite.name, suite.total), *(_row(f"  {each.name or '-'}", each) for each in (*groups, *suite.passes))]


def _row(name: str, group: GroupScore) -> tuple[str, ...]:
    return (
        name,
        percent(group.score),
        f"{100 * group.low:.1f} to {percent(group.high)}",
        f"{group.n_items:,}",
        f"{group.n_loops:,}",
        f"{group.n_cut:,}",
        "" if group.rate is None else rate(group.rate).removesuffix(" tok/s"),
        "" if group.ttft is None else duration(group.ttft),
    )


def show_rescored(found: Rescored) -> None:
    """Print the items with another verdict."""
    n = len(found.changed)
    note(f"{n:,} verdict{'s have' if n != 1 else ' has'} changed" if n else "no verdict has changed")
    if found.n_missing:
        note(f"{found.n_missing:,} items are no longer in their suites: the checks of the log judged them")
    _show_changed(found.changed, _verdict)


def show_comparison(found: Comparison) -> None:
    """Print the paired differences, and the items that were gained and lost."""
    print_line(f"against {found.base.model}, item by item:")
    suites = [*found.suites, found.total] if len(found.suites) > 1 else found.suites
    print_table(PAIRED, [_paired(each) for each in suites], right=range(1, 9), spare=("BASE", "P"))
    if found.n_unpaired:
        note(f"{found.n_unpaired:,} items are only in one of them, or ask something else there: they are left out")
    _show_changed(found.changed, _answers)
    if found.quality is not None:
        print_quality(found.quality)


def _paired(group: PairedScore) -> tuple[str, ...]:
    return (
        group.name,
        percent(group.score),
        percent(group.base),
        f"{100 * group.difference:+.1f}",
        f"{100 * group.low:+.1f} to {100 * group.high:+.1f}",
        f"{group.n_items:,}",
        f"{group.n_gained:,}",
        f"{group.n_lost:,}",
        f"{group.p_value:.2g}",
    )


def _show_changed(changed: Sequence[ChangedItem], shown: Callable[[ChangedItem], str]) -> None:
    better, worse = [each for each in changed if each.change > 0], [each for each in changed if each.change < 0]
    for word, some in (("gained", better), ("lost", worse)):
        for each in some[:MOST_SHOWN]:
            print_line(f"{word}  {_name(each)}  {shown(each)}")
        if len(some) > MOST_SHOWN:
            print_line(f"{word}  and {len(some) - MOST_SHOWN:,} more")


def _answers(each: ChangedItem) -> str:
    return f"{_shortened(each.base.answer)} -> {_shortened(each.now.answer)}"


def _verdict(each: ChangedItem) -> str:
    """One answer and what is said of it now."""
    return f"{_shortened(each.now.answer)}: {each.now.why or 'right'}"


def _name(each: ChangedItem) -> str:
    return "/".join(filter(None, each.now.key()))


def _shortened(answer: str) -> str:
    """An answer on one line; of a long one the end, where the result mostly stands."""
    text = " ".join(answer.split())
    return f'"{text}"' if len(text) <= MOST_OF_ANSWER else f'"…{text[1 - MOST_OF_ANSWER :]}"'


def show_suites(found: SuiteList) -> None:
    """Print the suites that can be named."""
    rows = [
        (suite.name, f"{suite.n_items:,}", f"{suite.n_checked:,}", ", ".join(suite.languages), suite.title)
        for suite in found.suites
    ]
    print_table(("SUITE", "ITEMS", "CHECKED", "LANGUAGES", "ABOUT"), rows, right=(1, 2), cut=True)
    for problem in found.problems:
        note(f"left out: {problem}")
    note("checked: how many items a person has read; next: edgellm eval smollm2 --suite NAME")
