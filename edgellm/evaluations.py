"""Evaluations of models by name, for the command line and for Python: where they work, and where their logs go.

import edgellm

found = edgellm.evaluate("smollm2", ["json"], limit=20)
print(found.suites[0].total.score, found.path)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.batch.lines import Shard
from edgellm.batch.record import begun_with, digest, file_content
from edgellm.batch.tally import Tally
from edgellm.batches import answer_file
from edgellm.errors import FileAccessError, UsageError
from edgellm.evaluation.asked_item import asked_items
from edgellm.evaluation.evaluation import Evaluation, EvaluationRun, EvaluationStep
from edgellm.evaluation.log import LogHeader, is_log, read_log
from edgellm.evaluation.score import suite_scores
from edgellm.evaluation.suite import Suite, choose_suites, known_suites
from edgellm.machine.cpu import detect
from edgellm.progress import Report, silent
from edgellm.run.answer_options import AnswerArguments, AnswerOptions
from edgellm.run.loader import LoadOptions
from edgellm.workspace import LocalModel, Workspace, workspace

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Answers are the same every time, unless the user wants it otherwise.
REPEATABLE = {"temperature": 0.0, "seed": 1}


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """How to evaluate: how the model is opened, how it answers, and with `raw` without a chat template."""

    load: LoadOptions
    answers: AnswerOptions
    raw: bool = False


class ModelEvaluation:
    """Suites on their way through a model: iterate over `run`, then read `result`.

    Nothing is loaded before the first step. The work is named by all that shapes the answers, so the same evaluation
    goes on where it was interrupted, and another one never gets its answers.
    """

    def __init__(
        self, here: Workspace, name: str, suites: Sequence[Suite], how: EvaluationOptions, log: Path | None = None
    ) -> None:
        """Check what can be checked without the model.

        Raises:
            UsageError: a check of a suite is wrong, the model writes no answers, or `log` is another file.
            FileAccessError: `log` cannot be written.
            ModelNotFound: there is no such model.
        """
        self._items = asked_items(suites)
        self._here, self._name, self._suites = here, name, suites
        here.require_chat(name, raw=how.raw)
        if log is not None:
            require_place(log)
        self._how = replace(how, answers=replace(how.answers, asked={**REPEATABLE, **how.answers.asked}))
        self._log = log
        self._result: Evaluation | None = None

    @property
    def result(self) -> Evaluation:
        """What was found, once `run` is over."""
        if self._result is None:
            raise RuntimeError("the evaluation is not over")
        return self._result

    def run(self, report: Report = silent) -> Iterator[EvaluationStep]:
        """Ask and judge; a step after every computation, and the log at the end. The model is pulled if need be.

        Raises:
            ModelNotFound and the other errors of `Workspace.model`; DoesNotFit.
        """
        here, how, local = self._here, self._how, self._here.model(self._name, report=report)
        record = here.installed_engine.record
        sha256 = digest(local.path, here.store, report=report)
        settings = _settings(local, how, sha256)
        suites = {each.name: each.digest for each in self._suites}
        asked = [sorted(settings.items()), record.stamp, list(suites.items())]  # another order is another evaluation
        name = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
        work = here.settings.evaluations / "work" / name
        most_tokens = how.answers.limits.max_tokens
        run = EvaluationRun(self._items, work, raw=how.raw, most_tokens=most_tokens)
        yield from run.run(lambda source, output, slots: self._answer(source, output, slots, report))
        header = LogHeader(
            run.date, local.label, sha256, record.version, record.stamp, detect().model,
            {"slots": how.load.n_slots, **settings}, suites,
        )  # fmt: skip
        self._result = run.finish(header, self._log or self._path(header, name))

    def _answer(self, source: Path, output: Path, slots: int | None, report: Report) -> Iterator[Tally]:
        load = self._how.load
        load = replace(load, n_slots=min(load.n_slots, slots or load.n_slots))
        return answer_file(
            self._here, self._name, source, output, shard=Shard(), load=load, options=self._how.answers, report=report
        )  # fmt: skip

    def _path(self, header: LogHeader, name: str) -> Path:
        """Where the log goes that nobody named: by date, model, and what was asked; never an earlier log's place."""
        date = header.date[:19].replace(":", "").replace("T", "-")
        model = re.sub(r"[^A-Za-z0-9._-]+", "-", header.model)
        stem = f"{date}-{model}-{name[:6]}"
        names = (f"{stem}{f'-{number}' if number > 1 else ''}.jsonl" for number in count(1))
        return next(path for each in names if not (path := self._here.settings.evaluations / each).exists())


def _settings(local: LocalModel, how: EvaluationOptions, sha256: str) -> dict[str, Any]:
    """What shapes the answers, by name, as the record of a batch has it."""
    return begun_with(
        file_content(local.path, sha256), local.recipe, how.answers, how.load, shard=Shard(), jsonl=True, raw=how.raw
    )


def evaluate(
    name: str,
    suites: Sequence[str] = (),
    *,
    limit: int | None = None,
    slots: int = 4,
    raw: bool = False,
    log: Path | None = None,
    offline: bool = False,
    report: Report = silent,
    **arguments: Unpack[AnswerArguments],
) -> Evaluation:
    """Ask suites of a model and judge its answers; killed at any moment, the same call goes on. As `edgellm.evaluate`.

    Args:
        name: a model's name, or the path of a GGUF file; it is pulled first if it is not here.
        suites: names of suites, NAME/CATEGORY, or paths of suites in TOML or JSON Lines; by default a quick look.
        limit: ask at most so many items of each suite, spread over its categories and languages.
        slots: how many answers are computed at once.
        raw: ask without the chat template, for models that only continue texts.
        log: where the log goes; by default a name with the date among the user's data.
        arguments: how to answer, as in `ask`; by default at temperature 0 and with one seed.

    Raises:
        UsageError: there is no such suite, or it is wrong; the model writes no answers; or `log` is another file.
        ModelNotFound, EngineMissing, DoesNotFit, CorruptFile: as in `open`.
    """
    here = workspace(offline=offline)
    chosen = choose_suites(suites, limit, here.suite_directories)
    how = EvaluationOptions(LoadOptions(n_slots=slots), AnswerOptions.of(arguments), raw)
    evaluation = ModelEvaluation(here, name, chosen, how, log)
    for _ in evaluation.run(report):
        pass
    return evaluation.result


def open_log(path: Path) -> Evaluation:
    """The evaluation in a log.

    Raises:
        FileAccessError: it cannot be read.
        CorruptFile: it is no log, or damaged.
        UsageError: it has no items.
    """
    header, items = read_log(path)
    if not items:
        raise UsageError(f"{path} has no items", why="there is nothing to score")
    return Evaluation(header, suite_scores(items), items, path)


def prepare(
    here: Workspace,
    model: str,
    against: str | None,
    names: Sequence[str],
    limit: int | None,
    how: EvaluationOptions,
    log: Path | None = None,
) -> list[Evaluation | ModelEvaluation]:
    """The evaluation of a model, and that of its base if there is one, each to be run or read from its log.

    Both are checked before either runs. A model that is compared with a log is asked the log's items.

    Raises:
        UsageError: the options do not go together; and the errors of `choose_suites`, `open_log`, `ModelEvaluation`.
    """
    sides = [model] if against is None else [model, against]
    logs = {name: open_log(Path(name)) for name in sides if names_log(name)}
    if model in logs and log is not None:
        raise UsageError(f"{model} is a log already", hint="--output is for a model's answers")
    if len(logs) == len(set(sides)):
        if names or limit:
            raise UsageError("--suite and --limit are for a model", why="a log has its items already")
        return [logs[name] for name in sides]
    known = next(iter(logs.values()), None)
    if known is not None and not names:
        suites = suites_of(known, here.suite_directories)
    else:
        suites = choose_suites(names, limit, here.suite_directories)
    places = (log, None)
    return [
        logs.get(name) or ModelEvaluation(here, name, suites, how, place)
        for name, place in zip(sides, places, strict=False)
    ]


def names_log(name: str) -> bool:
    """Whether a name in place of a model's is that of a log."""
    return name.endswith(".jsonl") or is_log(Path(name))


def require_place(log: Path) -> None:
    """Refuse a place for a log before anything is computed for it.

    Raises:
        UsageError: another file is there.
        FileAccessError: its directory is not there, or cannot be written to.
    """
    if log.exists() and not is_log(log):
        what = f"{log} is there, and no log of edgellm eval"
        raise UsageError(what, hint="another --output, or remove it", path=str(log))
    if not os.access(log.absolute().parent, os.W_OK):
        raise FileAccessError(f"cannot write {log}", why="its directory is not there or not yours", path=str(log))


def suites_of(evaluation: Evaluation, directories: Sequence[Path]) -> list[Suite]:
    """Today's suites with just the items that an evaluation asked.

    Raises:
        UsageError: none of them is there any more.
    """
    asked = {(item.suite, item.item) for item in evaluation.items}
    suites = known_suites([suite.name for suite in evaluation.suites], directories)
    pairs = [(suite, tuple(item for item in suite.items if (suite.name, item.id) in asked)) for suite in suites]
    found = [replace(suite, items=items) for suite, items in pairs if items]
    if not found:
        names = ", ".join(sorted({suite for suite, _ in asked}))
        why = f"it asked {names:.200}"
        raise UsageError(f"no suite has the items of {evaluation.path}", why=why, hint="--suite PATH/TO/SUITE.toml")
    return found
