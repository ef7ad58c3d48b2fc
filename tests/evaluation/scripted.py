"""Evaluations of a scripted model, through the real batch engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgellm.batch.job import Batch
from edgellm.batch.journal import Journal, already_answered
from edgellm.batch.lines import Shard, ids, survey
from edgellm.batch.scheduler import BatchOptions, Scheduler
from edgellm.batch.slots import LocalSlots
from edgellm.batch.tally import Tally
from edgellm.engine.fake import FakeModel
from edgellm.engine.sampling import Sampling
from edgellm.evaluation.asked_item import asked_items
from edgellm.evaluation.evaluation import Evaluation, EvaluationRun
from edgellm.evaluation.item import Item
from edgellm.evaluation.log import LoggedItem, LogHeader
from edgellm.evaluation.suite import Suite
from edgellm.models.fit.memory import RunPlan
from edgellm.run.loader import LoadedModel, LoadOptions

HEADER = LogHeader("2026-11-28T12:00:00+00:00", "fake", "0" * 64, "1.0", "stamp", "a CPU", {"seed": 1}, {"s": "d"})


def evaluate(suites: Sequence[Suite], model: FakeModel, directory: Path, *, n_slots: int = 3) -> Evaluation:
    """Ask suites of a scripted model; the log goes to `log.jsonl`."""

    def answer(source: Path, output: Path, slots: int | None) -> Iterator[Tally]:
        plan = RunPlan(n_ctx=8000, n_slots=min(n_slots, slots or n_slots), n_batch=64)
        loaded = LoadedModel("fake", model, plan, options=LoadOptions())
        scheduler = Scheduler(LocalSlots(loaded), BatchOptions(name="fake", names={"fake"}, sampling=Sampling()))
        assert already_answered(output, ids(source, Shard())) is None
        with Journal(output) as journal:
            journal.resume(ids(source, Shard()))
            yield from Batch(source, survey(source), Shard(), journal, scheduler).run()
            journal.finish()

    run = EvaluationRun(asked_items(suites), directory / "work")
    for _ in run.run(answer):
        pass
    return run.finish(HEADER, directory / "log.jsonl")


def logged(item: str, score: float, *, answer: str = "", suite: str = "s", prompt: str = "?") -> LoggedItem:
    """A judged item; its other fields do not matter."""
    messages = ({"role": "user", "content": prompt},)
    check = {"kind": "contains", "all": ["x"]}
    return LoggedItem(suite, item, "", "en", "", messages, answer, "stop", check, "", score, "", 5, 11, 0.5, 2.0)


def sums(n_items: int, name: str = "sums", **fields: object) -> Suite:
    """A suite of additions, in two languages and two categories."""
    items = tuple(
        Item(
            f"sum-{n}", f"What is {n} + {n}?", {"kind": "number", "value": 2 * n},
            category=("small", "large")[n > n_items // 2], language=("en", "zh")[n % 2],
        )
        for n in range(n_items)
    )  # fmt: skip
    return Suite(name, "Sums", items, **fields)  # type: ignore[arg-type]
