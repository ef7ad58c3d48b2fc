"""Scores of lm-eval's tasks, for people, beside the published ones.

print_benchmark(run_benchmark(here, "bonsai-0.5b", ["published"], TaskOptions(), LoadOptions()))
"""

from __future__ import annotations

from edgellm.evaluation.harness.result import TaskResult, score_cells
from edgellm.ui.console import note, print_table
from edgellm.units import duration

HEADERS = ("TASK", "SHOTS", "QUESTIONS", "METRIC", "SCORE", "ERROR", "PUBLISHED", "VERDICT")


def print_benchmark(found: TaskResult) -> None:
    """Print a row for each metric, why a score may differ, and how it was computed."""
    n = len(HEADERS) if any(score.published for score in found.scores) else HEADERS.index("PUBLISHED")
    rows = [score_cells(score)[:n] for score in found.scores]
    print_table(HEADERS[:n], rows, right=(1, 2, 4, 5, 6)[: n - 3], spare=("SHOTS", "QUESTIONS"))
    for score in found.scores:
        if score.published and score.published.reasons:
            note(f"{score.task} may differ because: {'; '.join(score.published.reasons)}")
    if found.n_truncated:
        note(f"{found.n_truncated:,} prompts were longer than {found.n_ctx:,} tokens and lost their beginning")
    reused = f", {found.n_reused:,} of them known from before" if found.n_reused else ""
    how = f"{found.model} {found.quant}, lm-eval {found.lm_eval}, {found.n_requests:,} requests{reused}"
    note(f"{how}, in {duration(found.seconds)}")
