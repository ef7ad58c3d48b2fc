"""What `tune` found is used for the same file, engine and machine alone; whatever else lies there is ignored."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgellm.machine.memory import Room
from edgellm.models.fit.memory import RunPlan
from edgellm.models.fit.outline import Outline
from edgellm.models.fit.tuned_plan import Tuning
from edgellm.models.fit.verdict import choose_plan, estimate, read_outline
from edgellm.models.local import tune_records
from edgellm.models.local.tune_records import TunePlace, known_tuning
from tests.models.tuned import TUNING, record_of, remember
from tests.weights.gguf_maker import write_llama

HERE = TunePlace.here("stamp")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "tunings"


def test_a_record_is_kept_whole(directory: Path, model: Path) -> None:
    record = record_of(model, HERE, others=1.5)
    path = tune_records.save(directory, record)
    assert tune_records.find(directory, model) == record == tune_records.read(path)
    assert known_tuning(directory, model, "stamp") == TUNING
    newer = replace(record, tuning=Tuning(2, 2))
    assert tune_records.save(directory, newer) == path
    assert [*tune_records.all_records(directory)] == [(path, newer)]
    assert tune_records.forget(directory, model) and not tune_records.forget(directory, model)
    assert tune_records.find(directory, model) is known_tuning(directory, model, "stamp") is None


@pytest.mark.parametrize(
    ("change", "obstacle"),
    [
        (lambda model: model.write_bytes(b"other weights"), "file has changed"),
        (lambda model: os.utime(model, (1, 1)), "file has changed"),
        (lambda model: model.unlink(), "file is gone"),
    ],
)
def test_another_file_is_another_model(
    directory: Path, model: Path, change: Callable[[Path], object], obstacle: str
) -> None:
    remember(directory, model, "stamp")
    change(model)
    record = tune_records.find(directory, model)
    assert record is not None and obstacle in record.obstacle(HERE)
    assert known_tuning(directory, model, "stamp") is None


def test_it_holds_for_one_engine_one_machine_and_one_level_of_kernels(
    directory: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(directory, model, "stamp")
    assert known_tuning(directory, model, "another") is None
    record = record_of(model, HERE)
    assert "another engine" in record.obstacle(replace(HERE, stamp="another"))
    assert "another machine" in record.obstacle(replace(HERE, machine="a laptop"))
    monkeypatch.setenv("EDGELLM_KERNELS", "stock")
    assert known_tuning(directory, model, "stamp") is None
    assert "other kernels" in record.obstacle(TunePlace.here("stamp"))


def test_why_to_measure_again(model: Path) -> None:
    record = record_of(model, HERE)
    assert record.doubt == "" and "used 1.5 cores" in replace(record, others=1.5).doubt
    assert "differ by 40 %" in replace(record, noise=0.4).doubt


def edited(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda data: {**data, **changes}


def tuning(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda data: {**data, "tuning": {**data["tuning"], **changes}}


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: [],
        lambda _: {},
        edited(version=2),
        edited(model="/another/model.gguf"),
        edited(model=3),
        edited(size=-1),
        edited(modified=None),
        edited(place=[]),
        edited(trials=[{"goal": "sleep"}]),
        edited(trials=7),
        edited(decode_gain=float("nan")),
        edited(prefill_gain=float("inf")),
        edited(noise="loud"),
        tuning(n_threads=0),
        tuning(n_threads=10**6),
        tuning(n_threads=True),
        tuning(n_threads_batch="2"),
        tuning(n_batch=10**9),
        tuning(flash_attention="off"),
    ],
)
def test_what_makes_no_sense_is_no_record(
    directory: Path, model: Path, damage: Callable[[dict[str, Any]], object]
) -> None:
    path = remember(directory, model, "stamp")
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match=r"\w"):
        tune_records.find(directory, model)
    assert known_tuning(directory, model, "stamp") is None


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"1" * 10_000, b" " * (1 << 19)])
def test_bytes_that_are_no_record(directory: Path, model: Path, text: bytes) -> None:
    remember(directory, model, "stamp").write_bytes(text)
    assert known_tuning(directory, model, "stamp") is None
    assert [record for _, record in tune_records.all_records(directory)] == [None]


def test_odd_names_have_records_too(directory: Path, tmp_path: Path) -> None:
    for name in ("ü" * 120 + ".gguf", "a b\n'\".gguf", os.fsdecode(b"\xff.gguf")):
        (tmp_path / name).write_bytes(b"weights")
        assert remember(directory, tmp_path / name, "stamp").parent == directory
        assert known_tuning(directory, tmp_path / name, "stamp") == TUNING


# Plans


@pytest.fixture
def outline(tmp_path: Path) -> Outline:
    return read_outline(write_llama(tmp_path / "tiny.gguf"))


ENOUGH = Room(10**12)


def test_a_plan_takes_what_was_found(outline: Outline) -> None:
    plan = choose_plan(outline, ENOUGH, n_ctx=256, kv_type=None, n_threads=2, tuning=TUNING)
    assert plan == RunPlan(256, n_batch=128, n_threads=1, n_threads_batch=3, flash_attention=False)
    asked = choose_plan(outline, ENOUGH, n_ctx=256, kv_type=None, n_threads=2, tuning=TUNING.with_threads(2))
    assert (asked.n_threads, asked.n_threads_batch, asked.n_batch) == (2, 2, 128)
    assert TUNING.with_threads(None) is TUNING


def test_a_quantized_cache_keeps_flash_attention(outline: Outline) -> None:
    plan = choose_plan(outline, ENOUGH, n_ctx=256, kv_type="q8_0", n_threads=2, tuning=TUNING)
    assert plan.flash_attention is None and plan.n_threads == 1


def test_memory_comes_before_speed(outline: Outline) -> None:
    """Where the faster plan would not fit, threads are all that changes; and nothing is refused for it."""
    large = Tuning(1, 1, n_batch=512, flash_attention=False)
    usual = choose_plan(outline, ENOUGH, n_ctx=512, kv_type=None, n_threads=2)
    just = Room(estimate(outline, usual).total)
    plan = choose_plan(outline, just, n_ctx=512, kv_type=None, n_threads=2, tuning=large)
    assert plan == replace(usual, n_threads=1, n_threads_batch=1)
    capped = choose_plan(outline, ENOUGH, n_ctx=512, kv_type=None, n_threads=2, max_memory=just.available, tuning=large)
    assert capped == plan


def test_what_flash_attention_saves_is_counted(outline: Outline) -> None:
    need, without = (estimate(outline, RunPlan(512, flash_attention=each)) for each in (None, False))
    assert without.compute - need.compute == 4 * 256 * 512 * outline.n_heads


def test_in_words() -> None:
    assert str(Tuning(1, 1)) == "1 thread, batches of 256"
    assert str(TUNING) == "1 thread, 3 for prompts, batches of 128, flash attention off"
    assert str(Tuning(4, 4, 512, flash_attention=True)) == "4 threads, batches of 512, flash attention on"
