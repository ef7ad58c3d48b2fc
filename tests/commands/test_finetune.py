"""`edgellm finetune` as it is typed, and its adapters in the other verbs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed (the extra edgellm[train])")

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.quantize import Quantizer
from edgellm.settings import Settings
from edgellm.weights.convert.converter import convert
from tests.commands.cli import data, edgellm, edgellm_here, error
from tests.conftest import REAL
from tests.serve.server import Server
from tests.training import dates
from tests.training.tiny import SMALL, abbreviations, write_pairs
from tests.weights import checkpoint_maker as make

pytestmark = pytest.mark.engine

QUICK = ("--threads", "1", "--batch", "2", "--rate", "2e-3", "--length", "64")


@pytest.fixture
def base(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny ternary model in the working directory, and pairs.jsonl beside it."""
    settings.engines.parent.mkdir(parents=True, exist_ok=True)
    settings.engines.symlink_to(REAL.engines)
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "pairs.jsonl")
    make.bitnet(tmp_path / "model", SMALL, packed=False)
    return convert(tmp_path / "model", tmp_path / "base.gguf").path


def test_a_dry_run_says_what_it_takes_and_leaves_nothing(base: Path) -> None:
    found = data(edgellm_here("finetune", "base.gguf", "pairs.jsonl", "-o", "out.gguf", "--dry-run", "--json"))
    assert found["result"] is None and found["plan"]["method"] == "ternary"
    assert found["plan"]["n_examples"] + found["plan"]["n_held_out"] == 20
    assert 0 < found["plan"]["memory"]["total"] < found["plan"]["available"]
    assert sorted(path.name for path in base.parent.iterdir()) == ["base.gguf", "model", "pairs.jsonl"]


def test_a_model_is_trained_and_has_a_name(base: Path) -> None:
    trained = edgellm("finetune", "base.gguf", "pairs.jsonl", "-o", "Mine", *QUICK, "--steps", "4")
    assert trained.returncode == 0, trained.stderr
    assert "next: edgellm chat mine" in trained.stderr and "method" in trained.stdout
    rows = [json.loads(line) for line in Path("Mine.training/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4] and rows[-1]["held_out"] is not None
    listed = data(edgellm_here("list", "--json"))
    assert "mine" in [each["name"] for each in listed["models"]] if isinstance(listed, dict) else listed
    answered = edgellm_here("run", "mine", "--raw", "x=", "-n", "2", "--temp", "0")
    assert answered.exit_code == 0 if hasattr(answered, "exit_code") else answered.returncode == 0
    again = edgellm_here("finetune", "base.gguf", "pairs.jsonl", "-o", "Mine", "--json")
    assert error(again)["code"] == "usage" and again.returncode == 2


def test_base_and_result_are_compared_on_a_suite(base: Path) -> None:
    """What was trained is asked by `eval`, of the base and of the new model or the base with its adapter."""
    known = abbreviations()[:8]
    rows = [{"id": f"a-{i}", "prompt": prompt, "check": {"kind": "contains", "all": [answer]}, "max_tokens": 3}
            for i, (prompt, answer) in enumerate(known)]  # fmt: skip
    Path("house.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    how = (*QUICK, "--held-out", "0", "--eval", "house.jsonl", "--json")
    for method, steps, output in (("ternary", "50", "mine.gguf"), ("lora", "60", "lora.gguf")):
        found = data(edgellm_here("finetune", "base.gguf", "pairs.jsonl", "-o", output, "--method", method, "--steps",
                                  steps, "--rank", "8", *how))  # fmt: skip
        total = found["comparison"]["total"]
        assert (total["base"], total["n_items"]) == (0, 8) and total["score"] >= 0.75
    unknown = edgellm_here("finetune", "base.gguf", "pairs.jsonl", "-o", "x.gguf", "--eval", "none", "--json")
    assert error(unknown)["code"] == "usage" and not Path("x.training").exists()
    refused = edgellm_here("finetune", "model", "pairs.jsonl", "-o", "x.gguf", "--eval", "house.jsonl", "--json")
    assert "a checkpoint" in error(refused)["what"]


def said(*more: str, prompt: str = "") -> str:
    result = edgellm_here("run", "base.gguf", "--raw", prompt, "-n", "3", "--temp", "0", "--no-loop-guard", *more)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_an_adapter_answers_in_every_verb(base: Path) -> None:
    """Trained on abbreviations, it knows them in run, batch and serve; with a scale of 0 it is not there."""
    trained = edgellm_here("finetune", "base.gguf", "pairs.jsonl", "-o", "lora.gguf", "--method", "lora", *QUICK,
                           "--steps", "60", "--held-out", "0", "--rank", "8", "--json")  # fmt: skip
    assert data(trained)["result"]["is_adapter"] is True and data(trained)["name"] is None
    known = abbreviations()[:6]
    right = [(prompt, answer) for prompt, answer in known if said("--lora", "lora.gguf", prompt=prompt) == answer]
    assert len(right) >= 5
    prompt, answer = right[0]
    plain = said(prompt=prompt)
    assert plain != answer and said("--lora", "lora.gguf:0", prompt=prompt) == plain

    Path("in.jsonl").write_text("".join(json.dumps({"prompt": each}) + "\n" for each, _ in right))
    batch = ("batch", "in.jsonl", "-o", "out.jsonl", "-m", "base.gguf", "--raw", "-n", "3", "--temp", "0",
             "--no-loop-guard", "--json")  # fmt: skip
    assert edgellm_here(*batch, "--lora", "lora.gguf").returncode == 0
    assert answer in Path("out.jsonl").read_text()
    other = edgellm_here(*batch, "--lora", "lora.gguf:0.5")
    assert other.returncode == 2 and "lora" in other.stderr  # not the batch that was begun

    server = Server.start("base.gguf", "--lora", "lora.gguf", "--slots", "1", "--no-docs")
    try:
        asked = {"model": "base", "prompt": prompt, "max_tokens": 3, "temperature": 0, "loop_guard": False}
        replies = [
            server.request("POST", "/v1/completions", asked | more).json()["choices"][0]["text"].strip()
            for more in ({}, {"lora": [{"id": 0, "scale": 0.0}]}, {"lora": [{"id": 0, "scale": 1.0}]})
        ]
        assert replies == [answer, plain, answer]
        assert server.request("POST", "/v1/completions", asked | {"lora": [{"id": 9, "scale": 1}]}).status == 400
        assert server.request("POST", "/v1/completions", asked | {"lora": 1}).status == 400
        assert said(prompt=prompt) == plain  # a server with an adapter does not answer for the model
    finally:
        server.stop()


def test_adapters_that_cannot_be_used_are_refused(base: Path) -> None:
    cases = {
        ("run", "base.gguf", "--raw", "x", "--lora", "none.gguf"): "there is no adapter",
        ("run", "base.gguf", "--raw", "x", "--lora", "base.gguf"): "is no adapter",
        ("serve", "--lora", "base.gguf"): "--lora needs one model",
        ("serve", "base.gguf", "--answer-cache", "--lora", "base.gguf"): "do not go together",
    }
    for command, words in cases.items():
        found = error(edgellm_here(*command, "--json"))
        assert found["code"] == "usage" and words in found["what"]


def test_without_torch_it_says_what_to_install(base: Path, tmp_path: Path) -> None:
    """The extra is missing: a module that cannot be imported stands in its place. Other verbs do not notice."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "torch.py").write_text('raise ImportError("No module named torch", name="torch")\n')
    env = {"PYTHONPATH": os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")])}
    found = error(edgellm("finetune", "base.gguf", "pairs.jsonl", "-o", "x.gguf", "--json", env=env))
    assert "edgellm[train]" in found["what"] and "MB" in found["why"] and "pip install" in found["try"]
    assert edgellm("show", "base.gguf", env=env).returncode == 0
    assert edgellm("finetune", "--help", env=env).returncode == 0


def test_bad_examples_are_named(base: Path) -> None:
    Path("bad.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"promt": "a"}\n')
    found = error(edgellm_here("finetune", "base.gguf", "bad.jsonl", "-o", "x.gguf", "--json"))
    assert "line 2" in found["what"] and not Path("x.training").exists()


def killed_run(*command: str, after: Path) -> int:
    """Start a command, and kill it with SIGKILL when a file is there; returns its exit status."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgellm", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    end = time.monotonic() + 300
    while not list(after.parent.glob(after.name)) and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    return process.wait()


@pytest.mark.soak
def test_a_killed_run_goes_on_to_the_same_file(base: Path) -> None:
    how = ("--steps", "40", "--save-every", "5", "--method", "ternary", *QUICK)
    assert edgellm("finetune", "base.gguf", "pairs.jsonl", "-o", "whole.gguf", *how, timeout=600).returncode == 0
    command = ("finetune", "base.gguf", "pairs.jsonl", "-o", "parts.gguf", *how)
    status = killed_run(*command, after=Path("parts.training/step-000000005.safetensors"))
    assert status == -signal.SIGKILL and not Path("parts.gguf").exists()
    assert edgellm(*command).returncode == 2  # a run was begun
    assert edgellm(*command, "--resume", timeout=600).returncode == 0
    assert Path("parts.gguf").read_bytes() == Path("whole.gguf").read_bytes()


@pytest.mark.soak
def test_ctrl_c_keeps_the_last_step(base: Path) -> None:
    command = ("finetune", "base.gguf", "pairs.jsonl", "-o", "out.gguf", "--steps", "4000", *QUICK)
    metrics = Path("out.training/metrics.jsonl")
    with subprocess.Popen([sys.executable, "-m", "edgellm", *command], stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 300
        while not metrics.is_file() or len(metrics.read_text().splitlines()) < 4:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        words = process.communicate()[1].decode()
    assert process.returncode == 130 and "--resume" in words
    done = json.loads(metrics.read_text().splitlines()[-1])["step"]
    assert Path(f"out.training/step-{done:09}.safetensors").is_file()


@pytest.mark.soak
@pytest.mark.model
def test_the_worked_example(base: Path, smollm2: Path) -> None:
    """SmolLM2 writes no date as the house does; with the adapter at least 18 of 20 dates that it was not trained on."""
    dates.write_examples(Path("dates.jsonl"))
    how = ("--epochs", "2", "--rate", "1e-3", "--json")
    trained = edgellm("finetune", str(smollm2), "dates.jsonl", "-o", "dates.gguf", *how, timeout=7200)
    found = data(trained)["result"]
    assert found["held_out_after"] < found["held_out_before"] / 4
    assert right_dates(smollm2, "before.jsonl") == 0
    assert right_dates(smollm2, "after.jsonl", "--lora", "dates.gguf") >= 18


@pytest.mark.soak
@pytest.mark.model
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_checkpoint_of_full_size_takes_the_memory_that_was_planned(
    base: Path, smollm2: Path, engine: InstalledEngine, method: str
) -> None:
    """SmolLM2, turned back into a checkpoint: what it takes is told within 20 %, and the loss falls."""
    from tests.training.smollm2_checkpoint import write_checkpoint

    write_checkpoint(smollm2, Path("smollm2"), Quantizer(engine.libraries, 1))
    dates.write_examples(Path("dates.jsonl"))
    how = ("--method", method, "--steps", "3", "--threads", "2", "--json")
    found = data(edgellm("finetune", "smollm2", "dates.jsonl", "-o", "out.gguf", *how, timeout=3600))
    planned, result = found["plan"]["memory"]["total"], found["result"]
    assert 0.8 * planned < result["peak_bytes"] < 1.2 * planned
    assert result["held_out_before"] == pytest.approx(2.39, abs=0.05)  # as of the file that it was made from
    assert result["held_out_after"] < 0.6 * result["held_out_before"] and result["is_adapter"] == (method == "lora")
    if method == "full":
        assert edgellm("run", "out", "Hello", "-n", "2").returncode == 0


def right_dates(model: Path, output: str, *more: str) -> int:
    """How many of 20 dates a model writes as the house does."""
    asked = dates.questions()
    rows = [{"custom_id": answer, "prompt": question} for question, answer in asked]
    Path("questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("batch", "questions.jsonl", "-o", output, "-m", str(model), "--temp", "0", "-n", "20", *more)
    assert edgellm(*command, timeout=1800).returncode == 0
    answers = [json.loads(line) for line in Path(output).read_text().splitlines()]
    said = {row["custom_id"]: row["response"]["body"]["choices"][0]["message"]["content"].strip() for row in answers}
    return sum(said[answer] == answer for _, answer in asked)
