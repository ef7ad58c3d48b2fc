"""A whole batch on a scripted engine: what is tried again, how far it runs ahead, and what its tally says."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgellm.engine.base import Sampling
from edgellm.engine.fake import FakeModel, FakeSequences
from edgellm.errors import DoesNotFit
from edgellm.models.memory import RunPlan
from edgellm.run import batch as batch_module
from edgellm.run.batch import Batch, BatchOptions, Tally
from edgellm.run.batch_journal import Journal
from edgellm.run.batch_lines import Shard, ids, survey
from edgellm.run.structure import Structure


def run(tmp_path: Path, lines: list[dict[str, Any]], model: FakeModel, **options: Any) -> tuple[list[Any], Tally, Any]:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)))
    how = {"name": "fake", "names": {"fake"}, "sampling": Sampling(seed=10), "bindings": tmp_path, **options}
    guard = how.pop("guard", lambda: None)
    plan = RunPlan(n_ctx=2000, n_slots=how.pop("n_slots", 2), n_batch=64)
    with Journal(out) as journal:
        journal.resume(ids(source, Shard()))
        job = Batch(source, survey(source), Shard(), journal, model, plan, BatchOptions(**how), guard=guard)
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

    def full() -> None:
        raise DoesNotFit("no more memory")

    directory = tmp_path / "full"
    directory.mkdir()
    with pytest.raises(DoesNotFit):
        run(directory, [{"prompt": "a"}], FakeModel(), guard=full)


def test_the_system_message_is_for_chats_without_one(tmp_path: Path) -> None:
    lines = [{"prompt": "a"}, {"prompt": "a", "system": "mine"}, {"url": "/v1/completions", "body": {"prompt": "a"}}]
    rows, _, _ = run(tmp_path, lines, FakeModel(), system="ours")
    counts = [row["response"]["body"]["usage"]["prompt_tokens"] for row in rows]
    assert counts == [len("<system>ours</system><user>a</user><assistant>")] * 2 + [1]
