"""`edgellm eval` as a user runs it: the real engine, the embedded model and a tiny one, killed at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import edgellm as python_api
from edgellm.evaluation.log import read_log, write_log
from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, edgellm_here, error
from tests.engine.tiny_models import write_bitnet
from tests.evaluation.scripted import HEADER, logged

pytestmark = [pytest.mark.engine, pytest.mark.model]
NEVER = '{ kind = "contains", all = ["a word that no model says"] }'
QUESTIONS = f"""
name = "capitals"
title = "Capitals"
max_tokens = 16

[[items]]
id = "paris"
prompt = "What is the capital of France?"
check = {{ kind = "contains", all = ["Paris"] }}

[[items]]
id = "nowhere"
prompt = "Say hello."
check = {NEVER}
"""


@pytest.fixture(autouse=True)
def home(with_engine: Settings) -> Settings:
    suites = with_engine.config / "suites"
    suites.mkdir(parents=True)
    (suites / "capitals.toml").write_text(QUESTIONS, encoding="utf-8")
    return with_engine


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, vocabularies: Path) -> Path:
    """Random weights, and quick: what it says means nothing, but it always says the same."""
    return write_bitnet(tmp_path_factory.mktemp("tiny") / "tiny.gguf", vocabularies)


def test_a_model_is_scored_logged_compared_and_judged_again(tmp_path: Path, home: Settings) -> None:
    log = tmp_path / "log.jsonl"
    found = data(edgellm("eval", "smollm2", "--suite", "capitals", "-c", "256", "-o", str(log), "--json"))
    (suite,) = found["suites"]
    assert (suite["name"], suite["total"]["score"], suite["total"]["n_items"]) == ("capitals", 0.5, 2)
    assert found["log"] == str(log) and found["header"]["settings"]["temperature"] == 0 and not found["below"]
    header, items = read_log(log)
    assert header.model == "smollm2" and list(header.suites) == ["capitals"] and len(header.fingerprint) == 64
    assert "Paris" in items[0].answer and items[0].score == 1 and items[0].decode_seconds > 0
    assert items[0].messages[-1]["content"] == "What is the capital of France?"
    assert not list((home.evaluations / "work").iterdir())

    (home.config / "suites" / "capitals.toml").write_text(
        QUESTIONS.replace(NEVER, '{ kind = "pattern", pattern = "." }')
    )
    better = tmp_path / "again.jsonl"
    again = data(edgellm_here("eval", "--rescore", str(log), "-o", str(better), "--json"))
    assert [each["now"]["item"] for each in again["rescored"]["changed"]] == ["nowhere"]
    assert again["suites"][0]["total"]["score"] == 1

    how = ("eval", str(log), "--against", str(better), "--min", "0.9")
    people = edgellm_here(*how)
    assert people.returncode == 1 and "capitals scores 50.0 %, --min wants 90.0 %" in people.stderr
    assert "9.5 to 90.5 %" in people.stdout and "lost  capitals/nowhere" in people.stdout and "-50.0" in people.stdout
    found = data(edgellm_here(*how, "--json"), code=1)
    assert found["below"] == [{"suite": "capitals", "score": 0.5, "least": 0.9}]
    total = found["comparison"]["total"]
    assert (total["n_lost"], total["difference"], found["comparison"]["quality"]) == (1, -0.5, None)


def test_a_model_against_another_has_quality_too(tmp_path: Path, tiny: Path, home: Settings) -> None:
    how = ("--suite", "capitals", "--raw", "-n", "4", "-c", "256")
    found = data(edgellm("eval", str(tiny), "--against", str(tiny), *how, "--json"))
    comparison = found["comparison"]
    assert comparison["total"]["difference"] == 0 and comparison["quality"]["divergence"]["mean"] == 0
    assert len(list(home.evaluations.glob("*.jsonl"))) == 2
    other = edgellm("eval", str(tiny), "--against", "smollm2", *how)
    assert other.returncode == 0 and "left out" in other.stderr and "item by item" in other.stdout


def test_the_suites_are_listed() -> None:
    listed = data(edgellm_here("eval", "--list", "--json"))
    (mine,) = [suite for suite in listed if suite["name"] == "capitals"]
    assert (mine["n_items"], mine["n_checked"], mine["languages"]) == (2, 0, ["en"])
    people = edgellm_here("eval")
    assert people.returncode == 0 and "capitals" in people.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("smollm2", "--suite", "capitols"), 2, "did you mean capitals?"),
        (("minilm", "--suite", "capitals"), 2, "it turns texts into vectors"),
        (("smollm2", "--rescore", "x.jsonl"), 2, "--rescore takes a log and no model"),
        (("--rescore", "bad.jsonl"), 6, "bad.jsonl is no log of edgellm eval"),
        (("smollm2", "--suite", "capitals", "-o", "bad.jsonl"), 2, "bad.jsonl is there, and no log"),
        (("smollm2", "--suite", "capitals", "-o", "nowhere/x.jsonl"), 1, "cannot write nowhere/x.jsonl"),
        (("--suite", "capitals"), 2, "no model is named"),
        (("a.jsonl", "--limit", "3"), 2, "--suite and --limit are for a model"),
        (("--rescore", "a.jsonl", "-o", "bad.jsonl"), 2, "bad.jsonl is there, and no log"),
        (("a.jsonl", "--against", "b.jsonl"), 2, "have no item in common"),
        (("a.jsonl", "-o", "c.jsonl"), 2, "a.jsonl is a log already"),
    ],
)
def test_what_cannot_be_done_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "a.jsonl", HEADER, [logged("a", 1)])
    write_log(tmp_path / "b.jsonl", HEADER, [logged("b", 1)])
    (tmp_path / "bad.jsonl").write_text('{"prompt": "x"}\n')
    before = sorted(path.name for path in tmp_path.iterdir())
    result = edgellm_here("eval", *arguments, "--json", "--offline")
    refused = error(result)
    assert result.returncode == code and said in f"{refused['what']} {refused['why']}"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_python_programs_evaluate_too(tiny: Path, with_engine: Settings) -> None:
    found = python_api.evaluate(str(tiny), ["capitals"], limit=1, slots=1, raw=True, max_tokens=4)
    assert [item.item for item in found.items] == ["paris"] and found.items[0].completion_tokens <= 4
    assert found.path is not None and read_log(found.path)[1] == found.items


FLOOR = Path(__file__).parent.parent / "evaluation" / "floor.toml"


@pytest.mark.parametrize(
    ("suite", "limit", "least"),
    # All of 12 and 3 of 8 were right; the floors leave room for the rounding of another CPU.
    [(str(FLOOR), 12, 0.75), ("json", 8, 0.1)],
    ids=["floor", "json"],
)
def test_the_embedded_model_is_as_good_as_it_was(suite: str, limit: int, least: float) -> None:
    """The project's own floor: an engine whose answers became worse is seen here."""
    how = ("--limit", str(limit), "--min", str(least), "-c", "512", "-n", "64")
    floor = edgellm("eval", "smollm2", "--suite", suite, *how, timeout=600)
    assert floor.returncode == 0, f"{floor.stdout}\n{floor.stderr}"


def many_items(path: Path, n_items: int) -> Path:
    draw = random.Random(0)
    items = [
        {"id": f"i{n}", "prompt": f"word {n}", "max_tokens": draw.choice((1, 3, 24)), "check": {"kind": "finished"}}
        for n in range(n_items)
    ]
    path.write_text("\n".join(map(json.dumps, items)))
    return path


def start(suite: Path, tiny: Path, *more: str) -> Any:
    command = [sys.executable, "-m", "edgellm", "eval", str(tiny), "--suite", str(suite), "--raw", "-c", "256", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ))


def answered(home: Settings) -> int:
    """How many bytes of answers an unfinished evaluation has."""
    return sum(path.stat().st_size for path in home.evaluations.rglob("*.part"))


def await_answers(process: Any, home: Settings) -> None:
    """Wait until there are more answers than now, or the process has ended."""
    before, deadline = answered(home), time.monotonic() + 100
    while process.poll() is None and answered(home) <= before and time.monotonic() < deadline:
        time.sleep(0.01)


def kill_until_done(suite: Path, log: Path, tiny: Path, home: Settings, kills: int, seed: int) -> int:
    """Start the same evaluation again and again, and kill it; returns how often."""
    draw, killed, process = random.Random(seed), 0, None
    while process is None or process.returncode != 0:
        process = start(suite, tiny, "-o", str(log), "--slots", str(draw.choice((1, 3, 8))))
        if killed < kills:
            # In the middle, mostly, and sometimes before anything is open.
            if draw.random() < 0.8:
                await_answers(process, home)
            time.sleep(draw.uniform(0, 0.4))
            process.send_signal(signal.SIGKILL)
            killed += 1
        _, message = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), message.decode()
    return killed


def expect_every_item_once(suite: Path, log: Path, tiny: Path, home: Settings, n_items: int) -> None:
    undisturbed = log.with_name("undisturbed.jsonl")
    kill_until_done(suite, undisturbed, tiny, home, kills=0, seed=0)
    assert not list((home.evaluations / "work").iterdir())
    found, expected = (
        [(item.item, item.answer, item.finish_reason, item.score) for item in read_log(path)[1]]
        for path in (log, undisturbed)
    )
    assert found == expected and [name for name, *_ in found] == [f"i{n}" for n in range(n_items)]


def test_killed_again_and_again_no_item_is_lost_or_scored_twice(tmp_path: Path, tiny: Path, home: Settings) -> None:
    suite, log = many_items(tmp_path / "many.jsonl", 200), tmp_path / "log.jsonl"
    kill_until_done(suite, log, tiny, home, kills=3, seed=1)
    expect_every_item_once(suite, log, tiny, home, 200)


@pytest.mark.soak
def test_twenty_kills(tmp_path: Path, tiny: Path, home: Settings) -> None:
    killed, run = 0, 0
    while killed < 20:
        run += 1
        suite, log = many_items(tmp_path / f"many{run}.jsonl", 1000), tmp_path / f"log{run}.jsonl"
        killed += kill_until_done(suite, log, tiny, home, kills=20, seed=run)
        expect_every_item_once(suite, log, tiny, home, 1000)


def test_interrupted_work_says_how_to_go_on(tmp_path: Path, tiny: Path, home: Settings) -> None:
    suite = many_items(tmp_path / "many.jsonl", 3000)
    process = start(suite, tiny)
    await_answers(process, home)
    process.send_signal(signal.SIGINT)
    out, message = process.communicate(timeout=60)
    assert process.returncode == 130 and b"the same command goes on" in message and out == b""
    assert b"Traceback" not in message and not list(home.evaluations.glob("*.jsonl"))
