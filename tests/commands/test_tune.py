"""`edgellm tune` as a user types it, and what the other verbs make of what it has found."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgellm import open as opened
from edgellm.diagnosis import _tunings
from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.builds.patches import PatchStack
from edgellm.models.fit.tuned_plan import Tuning
from edgellm.models.local.tune_records import TunePlace, save
from edgellm.settings import Settings
from edgellm.workspace import workspace
from tests.commands.cli import data, edgellm, edgellm_here, error
from tests.models.tuned import TUNING, record_of, remember
from tests.weights.gguf_maker import write_llama

SMOLLM2 = "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def stamp(engine: InstalledEngine) -> str:
    return engine.record.stamp


@pytest.mark.engine
def test_measure_show_forget(with_engine: Settings, tmp_path: Path) -> None:
    model = str(write_llama(tmp_path / "tiny.gguf"))
    assert "no model was tuned yet" in edgellm_here("tune", "--show").stderr
    assert data(edgellm_here("tune", model, "--show", "--json")) == []
    result = edgellm("tune", model, "--seconds", "1")
    assert result.returncode == 0, result.stderr
    assert "flash attention off" in result.stdout and "fastest" in result.stdout and "remembered" in result.stderr
    (found,) = data(edgellm_here("tune", "--show", "--json"))
    assert (found["model"], found["obstacle"]) == (model, "") and found["record"]["trials"]
    assert "GOAL" in edgellm_here("tune", model, "--show").stdout
    assert model in edgellm_here("tune", "--show").stdout
    assert f"forgotten: {model}" in edgellm_here("tune", model, "--forget").stderr
    assert not list(with_engine.tunings.iterdir())
    assert data(edgellm_here("tune", "--forget", "--json")) == []


@pytest.mark.engine
@pytest.mark.model
def test_verbs_run_a_model_as_it_was_tuned(with_engine: Settings, stamp: str) -> None:
    remember(with_engine.tunings, with_engine.models / SMOLLM2, stamp)
    run = edgellm("run", "smollm2", "Hi", "--temp", "0", "-n", "2", "--threads", "2", "--stats")
    assert "2 threads, batches of 128, flash attention off (tuned)" in run.stderr
    bench = data(edgellm("bench", "smollm2", "-p", "16", "-n", "2", "--rounds", "1", "--json"))
    assert {each["test"]["n_threads"] for each in bench["measurements"]} == {1, 3}
    assert bench["contenders"][0]["tuning"]["flash_attention"] is False
    fit = data(edgellm_here("fit", "smollm2", "--json"))
    assert fit["tuning"] == {"n_threads": 1, "n_threads_batch": 3, "n_batch": 128, "flash_attention": False}
    assert "1 thread, 3 for prompts" in edgellm_here("fit", "smollm2").stdout
    with opened("smollm2") as model:
        assert model.threads == "1 thread, 3 for prompts, batches of 128, flash attention off (tuned)"
        assert model.context.n_batch == 128 and model.ask("Hi", max_tokens=2, temperature=0).text
    with opened("smollm2", tuned=False) as model:
        assert model.plan.n_threads_batch is model.plan.flash_attention is None and "tuned" not in model.threads


@pytest.mark.engine
@pytest.mark.model
def test_what_does_not_hold_is_not_used_and_said(with_engine: Settings, stamp: str, stack: PatchStack) -> None:
    elsewhere = TunePlace("another", TunePlace.here(stamp).machine)
    record = record_of(with_engine.models / SMOLLM2, elsewhere, Tuning(7, 7), others=2.0)
    path = save(with_engine.tunings, record)
    shown = edgellm_here("tune", "--show")
    assert "smollm2" in shown.stdout and "not used: it was measured with another engine" in shown.stderr
    check = _tunings(with_engine, stack)
    assert check.ok and "0 models" in check.detail and "1 more were measured with another engine" in check.detail
    here = workspace()
    assert here.tuning(record.model) is None
    path.write_text("{}")
    assert here.tuning(record.model) is None
    assert "is damaged, and ignored; edgellm prune" in edgellm_here("tune", "--show").stderr
    assert data(edgellm_here("tune", "--show", "--json")) == []
    check = _tunings(with_engine, stack)
    assert not check.ok and not check.needed and check.fix == "edgellm prune"
    save(with_engine.tunings, record_of(record.model, TunePlace.here(stamp)))
    assert here.tuning(record.model) == TUNING and "1 model run" in _tunings(with_engine, stack).detail


def test_a_busy_machine_is_said(settings: Settings, tmp_path: Path) -> None:
    model = write_llama(tmp_path / "tiny.gguf")
    save(settings.tunings, record_of(model, TunePlace.here(""), others=2.0))
    shown = edgellm_here("tune", str(model), "--show")
    assert "other programs used 2.0 cores; repeat it on a quiet machine" in shown.stderr, "and no engine is needed"


def test_rm_and_prune_know_it(settings: Settings, tmp_path: Path) -> None:
    names = ("mine", "gone", "damaged")
    models = {name: write_llama(tmp_path / f"{name}.gguf") for name in names}
    assert edgellm_here("import", str(models["mine"])).returncode == 0
    records = {name: remember(settings.tunings, path, "stamp") for name, path in models.items()}
    models["gone"].unlink()
    records["damaged"].write_bytes(b"\0")
    found = {each["path"]: each["why"] for each in data(edgellm_here("prune", "--dry-run", "--json"))["files"]}
    assert found == {
        str(records["damaged"]): "what tune found, but it cannot be read",
        str(records["gone"]): "what tune found for a model that is gone",
    }
    assert edgellm_here("prune").returncode == 0 and [*settings.tunings.iterdir()] == [records["mine"]]
    assert edgellm_here("rm", "--yes", "mine").returncode == 0 and not records["mine"].exists()
    assert models["mine"].exists(), "the file is the user's"


def test_refusals(settings: Settings, tmp_path: Path) -> None:
    for code, arguments in ((2, ()), (2, ("smollm2", "--show", "--forget")), (3, ("nosuch", "--forget"))):
        result = edgellm("tune", *arguments)
        assert result.returncode == code and result.stderr.startswith("error: "), arguments
    missing = edgellm("tune", str(write_llama(tmp_path / "tiny.gguf")), "--json")
    assert missing.returncode == 7 and error(missing)["try"] == "edgellm engine build"


@pytest.mark.engine
@pytest.mark.model
def test_ctrl_c_leaves_nothing(with_engine: Settings) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edgellm", "tune", "smollm2"], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("measuring"):
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate()[1]
    assert process.returncode == 130 and "Traceback" not in rest
    assert not with_engine.tunings.exists()
