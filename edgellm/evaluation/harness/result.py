"""How tasks of lm-eval are run, and what comes of them; this module needs no lm-eval.

TaskOptions(limit=100)
found.scores[0].metric, found.scores[0].value, found.scores[0].error
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgellm.evaluation.harness.published import PublishedComparison


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How to run tasks: `shots` examples before each question, only the first `limit` questions of each task.

    `data` is a directory of data sets, `tasks` one with tasks of the user's own. `chat` puts the questions into the
    model's chat template. None stands for what is published, for all, and for the Hub.
    """

    shots: int | None = None
    limit: int | None = None
    data: Path | None = None
    tasks: Path | None = None
    chat: bool = False
    offline: bool = False


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One metric of a task, from 0 to 1 as most are, with its standard error, over `n_items` questions."""

    task: str
    metric: str
    value: float
    error: float | None
    shots: int
    n_items: int
    published: PublishedComparison | None = None


def is_share(score: TaskScore) -> bool:
    """Whether a metric is a share of the questions: accuracies and matches are, perplexities are not."""
    return score.metric.startswith(("acc", "exact_match", "f1", "mcc", "prompt_level", "inst_level"))


def score_cells(score: TaskScore) -> tuple[str, ...]:
    """A score as a row of a table: task, shots, questions, metric, score, error, published score, verdict."""
    share = is_share(score)
    return (
        score.task,
        str(score.shots),
        f"{score.n_items:,}",
        score.metric,
        f"{100 * score.value:.2f} %" if share else f"{score.value:.4g}",
        "" if score.error is None else f"± {100 * score.error:.2f}" if share else f"± {score.error:.2g}",
        f"{score.published.value:.2f} %" if score.published else "",
        score.published.verdict if score.published else "",
    )


@dataclass(frozen=True, slots=True)
class TaskResult:
    """The scores of some tasks. `n_reused` of the requests were answered by an earlier run.

    `n_truncated` prompts were longer than the context and lost their beginning. `n_tokens` were computed in `seconds`.
    """

    model: str
    quant: str
    lm_eval: str
    n_ctx: int
    chat: bool
    limit: int | None
    scores: tuple[TaskScore, ...]
    n_requests: int
    n_reused: int
    n_truncated: int
    n_tokens: int
    seconds: float
