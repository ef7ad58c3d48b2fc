"""An evaluation while it runs: the live line of a batch, with the score so far.

run_evaluation(evaluation, quiet=False).suites[0].total
"""

from __future__ import annotations

from edgellm.evaluation.evaluation import Evaluation, EvaluationStep
from edgellm.evaluations import ModelEvaluation
from edgellm.ui.batch_line import watch_batch
from edgellm.ui.evaluation_tables import percent
from edgellm.ui.progress import progress


def run_evaluation(evaluation: ModelEvaluation, *, quiet: bool) -> Evaluation:
    """Run an evaluation with a live line."""
    with progress(quiet=quiet) as report:
        steps = ((step.tally, _so_far(step)) for step in evaluation.run(report))
        watch_batch(steps, report, quiet=quiet)
    return evaluation.result


def _so_far(step: EvaluationStep) -> str:
    return "" if step.score is None else f"score {percent(step.score)}"
