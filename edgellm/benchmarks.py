"""Published benchmarks of models by name, by lm-eval's own tasks, for the command line and for Python programs.

    import edgellm

    found = edgellm.benchmark("bonsai-0.5b", ["published"])
    found.scores[0].value, found.scores[0].published

It needs the extra `edgellm[eval]`. What was computed is kept, so the same call goes on after a kill.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgellm.api import OpenModel
from edgellm.batch.record import digest
from edgellm.evaluation.harness.response_log import ResponseLog
from edgellm.evaluation.harness.result import TaskOptions, TaskResult
from edgellm.extras import BENCHMARKS
from edgellm.progress import Report, silent
from edgellm.run.loader import LoadOptions
from edgellm.workspace import Workspace, workspace

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def benchmark(
    name: str,
    tasks: Sequence[str],
    *,
    shots: int | None = None,
    limit: int | None = None,
    data: Path | None = None,
    chat: bool = False,
    n_ctx: int | None = None,
    offline: bool = False,
    report: Report = silent,
) -> TaskResult:
    """Run tasks of lm-eval on a model. As `edgellm.benchmark`, and `edgellm eval --tasks`.

    Args:
        tasks: their names in lm-eval, paths of YAML files, or "published" for those of the model's recipe.
        shots: examples before each question; by default as published, or else as lm-eval has it.
        limit: only the first questions of each task.
        data: a directory of data sets, for machines without a network.
        chat: put the questions into the model's chat template.

    Raises:
        UsageError: the extra is not installed, there is no such task, or it cannot be run.
        NetworkError, CorruptFile: a data set cannot be had, or cannot be read.
        ModelNotFound and the other errors of `edgellm.open`.
    """
    here = workspace(offline=offline)
    options = TaskOptions(shots, limit, data, chat=chat, offline=offline)
    return run_benchmark(here, name, tasks, options, LoadOptions(n_ctx=n_ctx), report=report)


def run_benchmark(
    here: Workspace,
    name: str,
    tasks: Sequence[str],
    options: TaskOptions,
    load: LoadOptions,
    *,
    report: Report = silent,
) -> TaskResult:
    """Open a model, and run tasks on it; the errors are those of `benchmark`."""
    BENCHMARKS.require()
    from edgellm.evaluation.harness.tasks import load_tasks, run_tasks

    local = here.model(name, report=report)
    loaded = load_tasks(tasks, options, name=local.name, recipe=local.recipe, report=report)
    sha256 = digest(local.path, here.store, report=report)
    with OpenModel(here, local, load, report=report) as model:
        _ = model.context if model.info.pooled else None  # which refuses models that predict no tokens
        with ResponseLog.open(here.settings.responses, _made_by(here, model, sha256)) as log:
            return run_tasks(model, loaded, options, log, report=report)


def _made_by(here: Workspace, model: OpenModel, sha256: str) -> Mapping[str, Any]:
    """All that changes a number, besides the request itself."""
    plan = model.plan
    return {"model": sha256, "engine": here.installed_engine.record.stamp, "kernels": here.engine().kernels,
            "n_ctx": plan.n_ctx, "kv_type": plan.kv_type}  # fmt: skip
