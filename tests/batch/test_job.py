"""A whole batch on a scripted engine: what is tried again, how far it runs ahead, and what its tally says."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgellm.batch import job as batch_module
from edgellm.batch.cached import CachedRows
from edgellm.batch.job import Batch
from edgellm.batch.journal import Journal
from edgellm.batch.lines import Shard, ids, survey
from edgellm.batch.scheduler import BatchOptions, Scheduler
from edgellm.batch.slots import LocalSlots
from edgellm.batch.tally import Tally
from edgellm.cache.answer_cache import AnswerCache
from edgellm.cache.store import AnswerStore
from edgellm.engine.fake import FakeModel, FakeSequences
from edgellm.engine.sampling import Sampling
from edgellm.errors import DoesNotFit
from edgellm.models.fit.memory import RunPlan
from edgellm.models.fit.tuned_plan import Tuning
from edgellm.run.loader import LoadedModel, LoadOptions
from edgellm.run.structure import Structure


def run(tmp_path: Path, lines: list[dict[str, Any]], model: FakeModel, **options: Any) -> tuple[list[Any], Tally, Any]:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)))
    how = {"name": "fake", "names": {"fake"}, "sampling": Sampling(seed=10), **options}
    cache = how.pop("cache", None)
    plan = RunPlan(n_ctx=2000, n_slots=how.pop("n_slots", 2), n_batch=64)
    loaded = LoadedModel("fake", model, plan, options=LoadOptions(max_memory=how.pop("max_memory", None)))
    with Journal(out) as journal:
        journal.resume(ids(source, Shard()))
        scheduler = Scheduler(LocalSlots(loaded), BatchOptions(**how))
        rows = CachedRows(cache, model="fake", options=scheduler.options) if cache else None
        job = Batch(source, survey(source), Shard(), journal, scheduler, rows)
        tallies = [(tally.done, tally.busy) for tally in job.run()]
        journal.finish()
    return [json.loads(line) for line in out.read_text().splitlines()], job.tally, tallies


class Drawing(FakeModel):
    """Remembers how each answer was to be drawn; what it says depends on the seed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Sampling] = []

    def open_sequences(self, **how: Any) -> FakeSequences:
        sequences = super().open_sequences(**how)
        open_sampler = sequences.open_sampler

        def remember(seq: int, sampling: Sampling, history: Any = ()) -> Any:
            self.seen.append(sampling)
            self._answers = ['{"a": 1}' if sampling.seed == 13 else "no json"]
            return open_sampler(seq, sampling, history)

        sequences.open_sampler = remember  # type: ignore[method-assign]
        return sequences

    def reply(self, prompt: str) -> str:
        return self._answers[0]


def test_every_row_has_a_seed_of_its_own_that_repeats(tmp_path: Path) -> None:
    model = Drawing()
    run(tmp_path, [{"prompt": "a"}, {"prompt": "b"}, {"prompt": "c", "seed": 3}], model)
    assert sorted(sampling.seed for sampling in model.seen) == [3, 11, 12]


def test_slots_are_opened_as_the_model_was_tuned(tmp_path: Path) -> None:
    opened = {}

    class Opening(FakeModel):
        def open_sequences(self, **how: Any) -> FakeSequences:
            opened.update(how)
            return super().open_sequences(**how)

    plan = RunPlan(n_ctx=2000, n_slots=2, n_batch=32, n_threads=1, n_threads_batch=3, flash_attention=False)
    loaded = LoadedModel("fake", Opening(), plan, options=LoadOptions(tuning=Tuning(1, 3, 32, flash_attention=False)))
    assert loaded.threads == "1 thread, 3 for prompts, batches of 32, flash attention off (tuned)"
    with Scheduler(LocalSlots(loaded), BatchOptions(name="fake", names={"fake"}, sampling=Sampling(seed=1))):
        assert (opened["n_threads"], opened["n_threads_batch"], opened["n_batch"]) == (1, 3, 32)
        assert opened["flash_attention"] is False


@pytest.mark.parametrize(
    ("retries", "temperature", "attempts"), [(0, 0.8, 1), (1, 0.8, 2), (2, 0.8, 3), (5, 0.8, 3), (5, 0, 1)]
)
def test_an_answer_of_the_wrong_form_is_drawn_again(
    tmp_path: Path, retries: int, temperature: float, attempts: int
) -> None:
    model = Drawing()
    structure = Structure("root ::= [^]*", '{"type": "object"}')
    line = {"prompt": "a", "temperature": temperature}
    (row,), tally, _ = run(tmp_path, [line], model, retries=retries, structure=structure)
    assert [sampling.seed for sampling in model.seen] == [11, 12, 13][:attempts]
    assert (row["error"] is None) is (attempts == 3) and tally.failed == (attempts != 3)
    if row["error"]:
        assert row["error"]["completion"]["choices"][0]["message"]["content"] == "no json"


def test_a_long_answer_does_not_let_the_others_run_ahead_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "WINDOW", 10)
    lines = [{"prompt": "first"}, *[{"prompt": f"{n}", "max_tokens": 1} for n in range(100)]]
    rows, tally, tallies = run(tmp_path, lines, FakeModel(["x" * 300]))
    assert tally.done == 101 and [row["id"].split("_")[2] for row in rows] == [str(n) for n in range(1, 102)]
    assert (0, 1) in tallies  # the window was full, only the first row was at work
    assert tallies[-1] == (101, 0)


def test_the_tally_and_the_memory(tmp_path: Path) -> None:
    _, tally, _ = run(tmp_path, [{"prompt": "a", "max_tokens": 4}, {"nothing": 1}], FakeModel(["abcdef"]))
    assert (tally.n_rows, tally.done, tally.failed, tally.completion_tokens, tally.busy) == (2, 2, 1, 4, 0)
    assert tally.rate > 0 and tally.seconds_left == 0

    directory = tmp_path / "full"
    directory.mkdir()
    with pytest.raises(DoesNotFit):
        run(directory, [{"prompt": "a"}], FakeModel(), max_memory=1)


def test_the_system_message_is_for_chats_without_one(tmp_path: Path) -> None:
    lines = [{"prompt": "a"}, {"prompt": "a", "system": "mine"}, {"url": "/v1/completions", "body": {"prompt": "a"}}]
    rows, _, _ = run(tmp_path, lines, FakeModel(), system="ours")
    counts = [row["response"]["body"]["usage"]["prompt_tokens"] for row in rows]
    assert counts == [len("<system>ours</system><user>a</user><assistant>")] * 2 + [1]


def test_rows_that_mean_the_same_are_answered_from_the_cache_and_say_so(tmp_path: Path) -> None:
    prompts = ["怎么导出数据？", "Name a colour.", "如何导出我的数据", "怎么导入数据？", "name a  colour"]
    lines = [{"prompt": prompt, "temperature": 0} for prompt in prompts] + [{"prompt": "Name a colour.", "seed": 1}]
    model = FakeModel(["one", "two", "three", "four", "five", "six"])
    with AnswerStore.open(tmp_path / "answers.sqlite3") as store:
        cache = AnswerCache(store, draw=lambda: 0.5)
        rows, tally, _ = run(tmp_path, lines, model, n_slots=1, cache=cache)
        said = [row["response"]["body"] for row in rows]
        origins = [body.get("edgellm", {}).get("cache") for body in said]
        assert [origin and origin["question"] for origin in origins] == [
            None, None, prompts[0], None, prompts[1], None
        ]  # fmt: skip
        assert tally.n_cached == 2 and tally.done == 6 and tally.failed == 0
        text = [body["choices"][0]["message"]["content"] for body in said]
        assert text[2] == text[0] and text[4] == text[1]
        assert len(store.entries()) == 3, "what is drawn above temperature 0 is not kept"
