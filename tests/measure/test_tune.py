"""What wins a comparison, what a search chooses on machines of all kinds, and a search on a real model."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.errors import DoesNotFit, UsageError
from edgellm.machine.cpu import CoreCounts
from edgellm.machine.memory import Room
from edgellm.measure.tune import tune as tune_module
from edgellm.measure.tune.comparison import Rounds, TuneCandidate, TuneComparison, Workload, compare
from edgellm.measure.tune.search import TuneSearch, thread_counts
from edgellm.measure.tune.tune import tune
from edgellm.models.fit.tuned_plan import Tuning
from edgellm.models.local.tune_records import TunePlace, find, save
from edgellm.progress import Observer, Progress
from edgellm.run.draft_costs import ROWS
from edgellm.settings import Settings
from tests.weights.gguf_maker import write_llama

DECODE, PREFILL = Workload("decode", 16), Workload("prefill", 64)
DEFAULT = Tuning(4, 4)
BASE, ONE, TWO = (TuneCandidate(str(n), replace(DEFAULT, n_threads=n)) for n in (4, 1, 2))
Rate = Callable[[Workload, TuneCandidate], float]


@dataclass
class Machine:
    """A probe with scripted rates and a clock of its own: a measurement takes tokens over rate seconds."""

    rate_of: Rate
    now: float = 0.0
    measured: list[tuple[str, str, int]] = field(default_factory=list)

    def rate(self, work: Workload, candidate: TuneCandidate, seed: int) -> float:
        self.measured.append((work.goal, candidate.tried, seed))
        rate = self.rate_of(work, candidate)
        self.now += work.n_tokens / rate
        return rate

    def clock(self) -> float:
        return self.now


def compared(rates: dict[str, list[float]], *rivals: TuneCandidate) -> TuneComparison:
    """A comparison with the base and these rates, round by round; the look is the first of them."""
    left = {name: iter([values[0], *values, *[values[-1]] * 9]) for name, values in rates.items()}
    machine = Machine(lambda _, candidate: next(left[candidate.tried]))
    return compare(machine, BASE, rivals, [DECODE], Rounds(1e9, clock=machine.clock))


def test_a_rival_wins_that_was_faster_in_every_round() -> None:
    found = compared({"4": [10, 11, 10], "1": [12, 13, 12], "2": [11, 12, 11]}, ONE, TWO)
    assert found.winner() is ONE and found.ratio(TWO, DECODE).median == pytest.approx(1.1)
    assert [(each.tried, each.rounds, each.chosen) for each in found.trials(ONE)] == [
        ("4", 5, False), ("1", 5, True), ("2", 5, False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "rounds"),
    [
        ([20, 20, 9, 20, 20], 3),  # a round was lost
        ([10.2] * 5, 5),  # in every round, but by two per cent
        ([9.9] * 5, 1),  # lost at once: no second round
    ],
)
def test_noise_wins_nothing(theirs: list[float], rounds: int) -> None:
    found = compared({"4": [10], "1": theirs}, ONE)
    assert found.winner() is BASE and len(found.rates[ONE, DECODE]) == rounds
    assert len(found.rates[BASE, DECODE]) >= 3, "whether the machine is quiet shows in the base"


def test_what_is_hopeless_is_only_looked_at() -> None:
    found = compared({"4": [10], "1": [4], "2": [8]}, ONE, TWO)
    assert not found.rates[ONE, DECODE] and len(found.rates[TWO, DECODE]) == 1
    looked = next(each for each in found.trials(BASE) if each.tried == "1")
    assert (looked.rounds, looked.rate) == (0, 4) and looked.ratio == pytest.approx(0.4)


def test_every_second_round_runs_backwards_and_time_ends_rounds() -> None:
    machine = Machine(lambda _, candidate: 1.0 if candidate is BASE else 1.5)
    found = compare(machine, BASE, [ONE], [DECODE], Rounds(60, clock=machine.clock))
    assert [(tried, seed) for _, tried, seed in machine.measured] == [
        ("4", 0), ("1", 0), ("4", 1), ("1", 1), ("1", 2), ("4", 2), ("4", 3), ("1", 3),
    ]  # fmt: skip
    assert found.winner() is ONE, "three rounds are enough"


def test_what_gains_for_one_goal_must_not_cost_the_other() -> None:
    def machine(prefill: float) -> Machine:
        faster = {"decode": 1.2, "prefill": prefill}
        return Machine(lambda work, candidate: 10 * (faster[work.goal] if candidate is ONE else 1.0))

    def winner(prefill: float) -> TuneCandidate:
        return compare(machine(prefill), BASE, [ONE], [DECODE, PREFILL], Rounds(1e9)).winner()

    assert winner(0.98) is ONE and winner(0.9) is BASE


def test_the_threads_that_are_tried() -> None:
    assert thread_counts(CoreCounts(1, 1, 1)) == [1]
    assert thread_counts(CoreCounts(2, 2, 2)) == [1, 2]
    assert thread_counts(CoreCounts(fast=8, physical=16, logical=24)) == [1, 2, 4, 8, 16, 24]


def search(rate_of: Rate, cores: CoreCounts, *, n_ctx: int = 1536, seconds: float = 40) -> tuple[TuneSearch, Machine]:
    machine = Machine(rate_of)
    default = Tuning(cores.fast, cores.fast)
    found = TuneSearch(machine, default, cores, n_ctx=n_ctx, seconds=seconds, clock=machine.clock)
    found.run()
    return found, machine


def laptop(work: Workload, candidate: TuneCandidate) -> float:
    """Memory feeds four threads; prompts gain from slow cores too, and from batches of 512."""
    tuning = candidate.tuning
    if work.goal == "decode":
        return 3.0 * min(tuning.n_threads, 4) - 0.5 * max(0, tuning.n_threads - 4)
    return 50.0 * min(tuning.n_threads_batch, 16) * (1.1 if tuning.n_batch == 512 and work.n_tokens == 512 else 1.0)


def test_threads_for_single_tokens_and_for_prompts_are_chosen_apart() -> None:
    found, machine = search(laptop, CoreCounts(fast=8, physical=16, logical=16))
    assert found.best == Tuning(4, 16, 512) and machine.now < 60
    assert found.gains == {"decode": pytest.approx(1.2), "prefill": pytest.approx(2.2)} and found.noise == 0
    assert {each.tried for each in found.trials if each.chosen} == {
        "4 threads", "16 threads", "flash attention", "batches of 512",
    }  # fmt: skip
    assert [each.tried for each in found.trials if each.goal == "decode" and "cache" in each.tried] == ["cache in q8_0"]


def test_flash_attention_is_left_out_where_it_costs() -> None:
    def costly(work: Workload, candidate: TuneCandidate) -> float:
        slower = work.depth and candidate.tuning.flash_attention is not False
        return laptop(work, candidate) * (0.5 if slower else 1.0)

    found, _ = search(costly, CoreCounts(4, 4, 4))
    assert found.best == Tuning(4, 4, 512, flash_attention=False)
    assert found.gains == {"decode": pytest.approx(2.0), "prefill": pytest.approx(2.2)}, "as after many tokens"


def test_flash_attention_that_one_goal_pays_for_comes_back() -> None:
    """Without it prompts are faster, and single tokens are slower when everything is compared in the end."""
    seen = [0]

    def fickle(work: Workload, candidate: TuneCandidate) -> float:
        seen[0] += candidate.tried == "all together"
        is_off = candidate.tuning.flash_attention is False
        faster = {"decode": 0.9 if seen[0] else 1.0, "prefill": 1.2}
        return 50.0 * (faster[work.goal] if work.depth and is_off else 1.0)

    found, _ = search(fickle, CoreCounts(2, 2, 2))
    assert found.best == Tuning(2, 2) and found.gains == {"decode": 1.0, "prefill": 1.0}
    assert "flash attention off" in [each.tried for each in found.trials if each.chosen]


def test_where_nothing_is_faster_the_default_stays() -> None:
    found, machine = search(lambda work, _: 20.0 if work.goal == "decode" else 200.0, CoreCounts(2, 2, 4))
    assert found.best == Tuning(2, 2) and found.gains == {"decode": 1.0, "prefill": 1.0}
    assert machine.now < 40, "nothing needs all rounds"


def test_a_choice_that_is_no_gain_in_the_end_is_taken_back() -> None:
    """One thread is faster while it is compared with two, and slower later."""
    seen = {"decode": 0, "prefill": 0}

    def fickle(work: Workload, candidate: TuneCandidate) -> float:
        seen[work.goal] += 1
        early = seen["prefill"] < 4
        n_threads = candidate.tuning.n_threads if work.goal == "decode" else candidate.tuning.n_threads_batch
        return 100.0 * (1.2 if (n_threads == 1) == (early and work.goal == "decode") else 1.0)

    found, _ = search(fickle, CoreCounts(2, 2, 2))
    assert found.best == Tuning(2, 2) and found.gains["decode"] == 1.0
    assert next(each.tried for each in found.trials if each.chosen) == "1 thread"


def test_slow_models_and_short_contexts() -> None:
    """Seven billion weights on two cores: less is tried, nothing is measured in parts of a batch."""
    slow, machine = search(lambda work, _: 3.0 if work.goal == "decode" else 9.0, CoreCounts(2, 2, 2))
    assert slow.best == Tuning(2, 2) and machine.now < 120
    assert not [each for each in slow.trials if "batches" in each.tried]
    tiny, machine = search(lambda work, _: 5e4, CoreCounts(2, 2, 2), n_ctx=64)
    assert max(each.depth for each in tiny.trials) <= 32


PLACE = TunePlace("stamp", "machine")


@pytest.mark.engine
def test_a_real_model(with_engine: Settings, engine: InstalledEngine, tmp_path: Path) -> None:
    seen: list[Progress] = []
    path, place = write_llama(tmp_path / "tiny.gguf"), TunePlace.here(engine.record.stamp)
    record = tune(path, "tiny", place, seconds=2, watch=Observer(seen.append))
    assert record.model == path and record.obstacle(place) == ""
    assert {each.goal for each in record.trials} == {"decode", "prefill"}
    assert {"flash attention off", "cache in q8_0"} <= {each.tried for each in record.trials}
    assert all(each.rate > 0 for each in record.trials) and record.noise > 0 and record.others >= 0
    assert all(1 <= cost <= 2 * rows for side in record.draft_costs for cost, rows in zip(side, ROWS, strict=True))
    assert len(record.draft_costs) == 2
    save(tmp_path / "tunings", record)
    assert find(tmp_path / "tunings", path) == record
    done = [event.done for event in seen if event.stage == "measuring"]
    assert done == sorted(done) and done[-1] == 100


@pytest.mark.model
def test_what_cannot_be_tuned(minilm: Path, smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="minilm generates nothing"):
        tune(minilm, "minilm", PLACE)
    monkeypatch.setattr(tune_module.memory, "room", lambda: Room(10**8))
    with pytest.raises(DoesNotFit, match="smollm2"):
        tune(smollm2, "smollm2", PLACE)
