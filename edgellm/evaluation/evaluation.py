"""An evaluation: suites asked of a model through the batch engine, judged, and scored.

    run = EvaluationRun(asked_items(suites), work, raw=False)
    for step in run.run(answer):        # answer(source, output, slots) answers a batch file
        print(step.n_judged, step.score)
    evaluation = run.finish(header, log)

The answers lie in the work directory, in the crash-safe files of a batch. Killed at any moment, the same run goes on:
an answer that is there is judged, and one that is not is asked for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

from edgellm.batch.tally import Tally
from edgellm.evaluation.asked_item import AskedItem
from edgellm.evaluation.log import LoggedItem, LogHeader, write_log
from edgellm.evaluation.score import SuiteScore, suite_scores
from edgellm.files import write_atomically

# Answers all rows of a file into another one, with at most so many slots (None: any number), and goes on where it was.
AnswerFile = Callable[[Path, Path, "int | None"], Iterator[Tally]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A finished evaluation: what was asked of which model, every answer with its verdict, and the scores.

    `path` is the log, None if it was not written.
    """

    header: LogHeader
    suites: tuple[SuiteScore, ...]
    items: tuple[LoggedItem, ...]
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class EvaluationStep:
    """How far an evaluation is: the tally of the batch under way, and the mean score of what is judged already."""

    tally: Tally
    n_judged: int
    score: float | None


class EvaluationRun:
    """Items on their way to a log; `work` is a directory of their own."""

    def __init__(self, items: list[AskedItem], work: Path, *, raw: bool = False, most_tokens: int = -1) -> None:
        self._items, self._work = items, work
        self._raw, self._most_tokens = raw, most_tokens
        self._judged: list[LoggedItem] = []

    def run(self, answer: AnswerFile) -> Iterator[EvaluationStep]:
        """Ask and judge; a step after every computation. Suites that want fewer slots are batches of their own."""
        for slots in dict.fromkeys(item.suite.slots for item in self._items):
            group = [item for item in self._items if item.suite.slots == slots]
            source = self._work / f"{slots or 'any'}-slots.jsonl"
            rows = (item.row(raw=self._raw, most_tokens=self._most_tokens) for item in group)
            data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
            # The time of the file is when the evaluation began. Other rows than before are refused by the journal.
            if not source.exists() or source.read_bytes() != data:
                write_atomically(source, data)
            yield from self._batch(group, answer(source, source.with_suffix(".answers"), slots), source)

    def _batch(self, group: list[AskedItem], tallies: Iterator[Tally], source: Path) -> Iterator[EvaluationStep]:
        answers, waiting = _Answers(source.with_suffix(".answers")), iter(group)
        with answers:
            for tally in tallies:
                for line in answers.new_lines():
                    self._judged.append(next(waiting).judged(json.loads(line)))
                yield EvaluationStep(tally, len(self._judged), self._score())

    def _score(self) -> float | None:
        return sum(item.score for item in self._judged) / len(self._judged) if self._judged else None

    @property
    def date(self) -> str:
        """When the evaluation began, in UTC."""
        began = min(path.stat().st_mtime for path in self._work.glob("*-slots.jsonl"))
        return datetime.fromtimestamp(began, timezone.utc).isoformat(timespec="seconds")

    def finish(self, header: LogHeader, path: Path) -> Evaluation:
        """Write the log, and remove the work."""
        order = {key: place for place, key in enumerate(self._keys())}
        items = tuple(sorted(self._judged, key=lambda item: order[item.key()]))
        write_log(path, header, items)
        # A single rename, so that work is never found half removed.
        done = self._work.with_suffix(".done")
        shutil.rmtree(done, ignore_errors=True)
        self._work.rename(done)
        shutil.rmtree(done)
        return Evaluation(header, suite_scores(items), items, path)

    def _keys(self) -> Iterator[tuple[str, str, str]]:
        return ((each.suite.name, each.item.id, each.pass_name) for each in self._items)


class _Answers:
    """The finished lines of a batch's output, as they are written."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._file: IO[bytes] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> _Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def new_lines(self) -> Iterator[bytes]:
        """What has been written since the last time; the file is renamed when it is whole, and stays open here."""
        if self._file is None:
            part = self._output.with_name(f"{self._output.name}.part")
            path = self._output if self._output.exists() else part
            self._file = self._stack.enter_context(path.open("rb"))
        while (line := self._file.readline()).endswith(b"\n"):
            yield line
        self._file.seek(-len(line), 1)
