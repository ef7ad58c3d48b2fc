"""What a recipe says of published benchmarks, beside what was computed here.

published_tasks("bonsai-0.5b", recipe)           # ["arc_challenge", "arc_easy", ...]
compare(recipe.scores, "arc_easy", "acc_norm", 0.58, 0.01, Conditions("TQ2_0", shots=0)).verdict
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.errors import UsageError
from edgellm.models.recipe import PublishedScore, Recipe

# The number of standard errors that two results may lie apart and still agree.
N_ERRORS = 2
# Types of tensors that hold published weights as they are.
UNQUANTIZED = ("F32", "F16", "BF16")
AGREES, DIFFERS = "agrees", "differs by more than its error"


@dataclass(frozen=True, slots=True)
class Conditions:
    """How scores were computed here, as far as it may explain a difference."""

    quant: str
    shots: int
    limit: int | None = None
    chat: bool = False
    n_truncated: int = 0


@dataclass(frozen=True, slots=True)
class PublishedComparison:
    """A published score in per cent, whether the one here agrees, and why it may not."""

    value: float
    source: str
    verdict: str
    reasons: tuple[str, ...]


def published_tasks(name: str, recipe: Recipe | None) -> list[str]:
    """The tasks whose scores a recipe has.

    Raises:
        UsageError: it has none.
    """
    tasks = [score.task for score in recipe.scores if score.task] if recipe else []
    if not tasks:
        why = f"the recipe of {name} names no task of lm-eval" if recipe else f"{name} has no recipe"
        raise UsageError(f"no published scores of {name} are known", why=why, hint="--tasks arc_easy,hellaswag")
    return list(dict.fromkeys(tasks))


def published_shots(scores: Sequence[PublishedScore], task: str) -> int | None:
    """How many examples came before each question; None if it is not known."""
    return next((score.shots for score in scores if score.task == task), None)


def compare(
    scores: Sequence[PublishedScore], task: str, metric: str, value: float, error: float | None, here: Conditions
) -> PublishedComparison | None:
    """A score from 0 to 1 with its standard error beside the published one; None if there is none for this metric."""
    for score in scores:
        if score.task == task and score.metric in (metric, None):
            agrees = abs(100 * value - score.value) <= N_ERRORS * 100 * (error or 0.0)
            reasons = () if agrees else tuple(_reasons(score, here))
            return PublishedComparison(score.value, score.source, AGREES if agrees else DIFFERS, reasons)
    return None


def _reasons(score: PublishedScore, here: Conditions) -> list[str]:
    """Why a score may differ from the published one."""
    reasons = [score.note] if score.note else []
    if here.quant not in UNQUANTIZED:
        reasons.append(f"the weights are {here.quant} here")
    if score.metric is None:
        reasons.append("the metric is not published")
    if score.shots is None:
        reasons.append("the number of examples is not published")
    elif score.shots != here.shots:
        reasons.append(f"{here.shots} examples here, {score.shots} there")
    if here.limit is not None:
        reasons.append(f"only the first {here.limit:,} questions of a task here")
    if here.chat:
        reasons.append("in the chat template here")
    if here.n_truncated:
        reasons.append(f"{here.n_truncated:,} prompts lost their beginning here: a larger --ctx-size")
    return reasons
