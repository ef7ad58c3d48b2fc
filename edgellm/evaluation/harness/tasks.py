"""Runs lm-eval's tasks on an open model, and sets their scores beside the published ones.

    BENCHMARKS.require()
    tasks = load_tasks(["arc_easy", "mmlu"], options, name="smollm2", recipe=None)
    found = run_tasks(model, tasks, options, log)
    found.scores[0].metric, found.scores[0].value, found.scores[0].error

A task has as many examples before its questions as it was published with, or else as lm-eval itself gives it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval
import lm_eval.api.task
import lm_eval.tasks
from lm_eval.tasks import TaskManager

from edgellm.errors import EdgellmError, UsageError
from edgellm.evaluation.harness.data_sets import data_sets
from edgellm.evaluation.harness.lm import InProcessLM
from edgellm.evaluation.harness.published import (
    Conditions,
    compare,
    published_shots,
    published_tasks,
)
from edgellm.evaluation.harness.response_log import ResponseLog
from edgellm.evaluation.harness.result import TaskOptions, TaskResult, TaskScore
from edgellm.models.recipe import PublishedScore, Recipe
from edgellm.progress import Progress, Report, silent
from edgellm.run.loader import LoadedModel
from edgellm.suggest import did_you_mean

# In place of names of tasks: those whose scores the recipe has.
PUBLISHED = "published"
ERROR = "_stderr"
# Tasks come loaded; the index would take ten seconds.
_NO_TASKS = TaskManager(include_defaults=False)


def load_tasks(
    names: Sequence[str], options: TaskOptions, *, name: str, recipe: Recipe | None, report: Report = silent
) -> dict[str, list[Any]]:
    """lm-eval's tasks and groups with their data, by the names that were asked for, before any model is loaded.

    `published` stands for the tasks of the recipe; `name` is the model's, for errors.

    Raises:
        UsageError: there is no such task, or it needs what is not offered here.
        NetworkError, CorruptFile: a data set cannot be had, or cannot be read.
    """
    report(Progress("reading lm-eval's tasks"))
    asked = dict.fromkeys(
        each for task in names for each in (published_tasks(name, recipe) if task == PUBLISHED else [task])
    )
    found: dict[str, list[Any]] = {}
    with _quiet(), data_sets(options.data, offline=options.offline):
        manager = _manager(asked, options.tasks)
        for each in asked:
            report(Progress(f"reading the data of {each}"))
            with _explained(each):
                loaded = manager.load([each])
            group = loaded["groups"].get(each)
            found[each] = [*loaded["tasks"].values()] if group is None else [group]
    return found


def run_tasks(
    model: LoadedModel,
    tasks: Mapping[str, Sequence[Any]],
    options: TaskOptions,
    log: ResponseLog,
    *,
    report: Report = silent,
) -> TaskResult:
    """Run tasks that are loaded.

    Raises:
        UsageError: a task needs what is not offered here.
        DoesNotFit: there is not enough memory for the logits.
    """
    began = time.monotonic()
    published = model.recipe.scores if model.recipe else ()
    lm = InProcessLM(model, log, report=report)
    found: list[TaskScore] = []
    with _quiet():
        for name, items in tasks.items():
            shots = published_shots(published, name) if options.shots is None else options.shots
            with _explained(name):
                results = lm_eval.simple_evaluate(
                    lm, tasks=[*items], num_fewshot=shots, limit=options.limit, apply_chat_template=options.chat,
                    fewshot_as_multiturn=options.chat, log_samples=False, task_manager=_NO_TASKS,
                )  # fmt: skip
            found += _scores(name, results, lm, options, published)
    return TaskResult(
        model=model.name, quant=model.info.quant, lm_eval=version("lm_eval"), n_ctx=model.plan.n_ctx, chat=options.chat,
        limit=options.limit, scores=tuple(found), n_requests=lm.n_requests, n_reused=lm.n_reused,
        n_truncated=lm.n_truncated, n_tokens=lm.n_tokens, seconds=time.monotonic() - began,
    )  # fmt: skip


def _manager(names: Collection[str], own: Path | None) -> TaskManager:
    """lm-eval's index of tasks, in which all these names are found.

    Reading all its 14,000 files takes ten seconds and more, so the folders that the names begin with come first:
    `arc_easy` is in `arc`.

    Raises:
        UsageError: there is no such task.
    """
    folders = [each for each in Path(lm_eval.tasks.__file__).parent.iterdir() if each.is_dir()]
    near = [each for each in folders if any(name.startswith(each.name) for name in names)]
    paths = [str(each) for each in (*near, *filter(None, [own]))]
    manager = TaskManager(include_path=paths, include_defaults=False)
    if all(_is_known(name, manager) for name in names):
        return manager
    manager = TaskManager(include_path=own and str(own))
    for name in names:
        if not _is_known(name, manager):
            guess = did_you_mean(name, manager.all_tasks)
            why = f"did you mean {guess}?" if guess else f"it has {len(manager.all_tasks):,} tasks"
            raise UsageError(f"lm-eval has no task {name[:60]!r}", why=why, hint="lm_eval ls tasks")
    return manager


def _is_known(name: str, manager: TaskManager) -> bool:
    """Whether it is the name of a task, a group or a tag, or the path of a task's YAML file."""
    return name in manager.all_tasks or (name.endswith((".yaml", ".yml")) and Path(name).is_file())


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what lm-eval raises into ours: a task that runs code, that wants pictures, whose data has other columns."""
    try:
        yield
    except EdgellmError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, ImportError) as error:
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise UsageError(f"lm-eval cannot run {name}", why=why) from error


def _scores(
    name: str, results: Mapping[str, Any], lm: InProcessLM, options: TaskOptions, published: Sequence[PublishedScore]
) -> Iterator[TaskScore]:
    """The metrics of a task; of a tag, those of each of its tasks."""
    ends = results["results"]
    for task in [name] if name in ends else [each for each in ends if each in results["n-samples"]]:
        members = _members(task, results)
        n_items = sum(results["n-samples"][member]["effective"] for member in members)
        shots = results["n-shot"].get(members[0], 0)
        here = Conditions(lm.model.info.quant, shots, options.limit, options.chat, lm.n_truncated)
        for label, value in ends[task].items():
            metric, _, variant = label.partition(",")
            if not variant or metric.endswith(ERROR) or not isinstance(value, (int, float)):
                continue
            error = ends[task].get(f"{metric}{ERROR},{variant}")
            error = float(error) if isinstance(error, (int, float)) else None
            shown = metric if variant == "none" else f"{metric} ({variant})"
            beside = compare(published, name, metric, value, error, here)
            yield TaskScore(task, shown, float(value), error, shots, n_items, beside)


def _members(task: str, results: Mapping[str, Any]) -> list[str]:
    """The tasks of a group, at any depth; a task itself."""
    below = results.get("group_subtasks", {}).get(task, [])
    return [member for each in below for member in _members(each, results)] if below else [task]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval's log and its own bars from the terminal, which shows ours."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [logger.level for logger in loggers]
    bar = lm_eval.api.task.tqdm
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    lm_eval.api.task.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        lm_eval.api.task.tqdm = bar
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
