"""The verbs that need no answer from a model: listing, showing, removing, status, doctor, help, errors."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.cli import app
from edgellm.engine.patches import PatchStack
from edgellm.models.store import InstalledModel, Store
from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error


def test_alone_it_tells_where_things_stand_and_never_fails() -> None:
    result = edgellm()
    assert result.returncode == 0 and "not built" in result.stdout and "next: edgellm engine build" in result.stderr


def test_every_verb_has_help_with_an_example() -> None:
    verbs = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
    for verb in [*verbs, "engine build", "engine status"]:
        result = edgellm(*verb.split(), "--help")
        assert result.returncode == 0, verb
        assert verb == "ls" or re.search(r"Examples?: .*edgellm", result.stdout), verb


def test_an_unknown_verb_and_a_wrong_option_are_usage_errors() -> None:
    assert "Did you mean 'pull'" in edgellm("pul").stderr
    assert edgellm("pul").returncode == edgellm("list", "--nonsense").returncode == 2
    assert edgellm("run", "smollm2", "hi", "--temp", "99").returncode == 2
    assert edgellm("--version").stdout.startswith("edgellm ")


def test_without_an_engine_the_command_to_build_it_is_named(settings: Settings, smollm2: Path) -> None:
    result = edgellm("run", str(smollm2), "hi", "--json")
    assert result.returncode == 7
    assert (error(result)["code"], error(result)["try"]) == ("engine-missing", "edgellm engine build")


def test_a_typo_is_met_with_the_nearest_name() -> None:
    for verb in (["run", "smolm2", "hi"], ["show", "smolm2"], ["pull", "smolm2"], ["chat", "smolm2"]):
        result = edgellm(*verb)
        assert result.returncode == 3 and "did you mean smollm2?" in result.stderr, verb


def test_lists(settings: Settings) -> None:
    assert data(edgellm("list", "--json")) == []
    assert "no model is installed" in edgellm("list").stderr
    available = data(edgellm("list", "--available", "--json"))
    assert "smollm2" in [recipe["name"] for recipe in available]
    assert "Apache-2.0" in edgellm("list", "-a").stdout


@pytest.mark.model
def test_show(with_engine: Settings, smollm2: Path) -> None:
    shown = data(edgellm("show", "smollm2", "--json"))
    assert shown["architecture"] == "llama" and shown["context"] == 8192 and shown["chat_template"] is True
    assert shown["parameters"] == 134_515_008 and sum(shown["tensor_types"].values()) == 272
    assert shown["path"] == data(edgellm("show", shown["path"], "--json"))["path"]
    assert "8,192 tokens" in edgellm("show", "smollm2").stdout


def test_show_of_a_model_not_pulled_yet_says_how_to_get_it() -> None:
    result = edgellm("show", "smollm2")
    assert result.returncode == 3 and "edgellm pull smollm2" in result.stderr


def test_rm_asks_and_removes(settings: Settings) -> None:
    store = Store(settings.models)
    path = store.file_path("tiny", "tiny.gguf")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"12345")
    store.add(InstalledModel("tiny", path, 5, "0" * 64, "test", "2026"))
    assert edgellm("rm", "tiny").returncode == 2 and path.exists()
    missing = edgellm("rm", "tiny", "nosuch", "--yes")
    assert missing.returncode == 3 and path.exists()
    assert data(edgellm("rm", "tiny", "--json")) == [{"name": "tiny", "freed": 5, "kept": []}]
    assert not path.exists() and edgellm("rm", "tiny", "-y").returncode == 3


@pytest.mark.engine
def test_engine_status(with_engine: Settings, stack: PatchStack) -> None:
    status = data(edgellm("engine", "status", "--json"))
    assert status["built"] is True and status["stamp"] == stack.stamp
    assert [patch["name"] for patch in status["patches"]] == [patch.name for patch in stack.patches]
    text = edgellm("engine", "status").stdout
    assert all(patch.name in text and patch.reason in text for patch in stack.patches)


def test_engine_status_without_an_engine() -> None:
    assert data(edgellm("engine", "status", "--json"))["built"] is False
    assert "edgellm engine build" in edgellm("engine", "status").stdout


@pytest.mark.engine
def test_engine_build_returns_at_once_when_it_is_built(with_engine: Settings, stack: PatchStack) -> None:
    result = edgellm("engine", "build", timeout=20)
    assert result.returncode == 0 and stack.stamp in result.stdout and result.stderr == ""


@pytest.mark.engine
@pytest.mark.model
def test_doctor_generates_tokens(with_engine: Settings) -> None:
    report = data(edgellm("doctor", "--json"))
    checks = {check["name"]: check for check in report["checks"]}
    assert report["ok"] and {"cpu", "cores", "memory", "disk", "compiler", "engine", "answer"} <= set(checks)
    assert "Paris" in checks["answer"]["detail"]
    assert edgellm("doctor").stdout.count("ok ") >= 8


def test_doctor_names_the_command_that_mends_each_failure(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "git").symlink_to(shutil.which("git") or "git")
    result = edgellm("doctor", "--json", env={"PATH": str(tools)})
    assert result.returncode == 1
    report = json.loads(result.stdout)
    failed = {check["name"]: check["fix"] for check in report["checks"] if not check["ok"]}
    assert {"compiler", "make", "engine", "answer"} <= set(failed) and all(failed.values())
    assert failed["engine"] == "edgellm engine build" and "install" in failed["compiler"]


@pytest.mark.engine
@pytest.mark.model
def test_doctor_passes_on_what_the_failed_answer_advises(with_engine: Settings) -> None:
    result = edgellm("doctor", "--json", env={"EDGELLM_CTX_SIZE": "9000"})
    answer = json.loads(result.stdout)["checks"][-1]
    assert result.returncode == 1 and answer["name"] == "answer" and answer["fix"] == "--ctx-size 8192"


def test_a_broken_user_recipe_is_one_error(settings: Settings) -> None:
    recipes = settings.config / "recipes"
    recipes.mkdir(parents=True)
    (recipes / "mine.toml").write_text("summry = 1\n")
    result = edgellm("list", "--available")
    assert result.returncode == 6 and "did you mean summary?" in result.stderr


def test_an_unwritable_home_is_one_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    result = edgellm("pull", "smollm2", env={"EDGELLM_HOME": str(file / "below")})
    assert result.returncode == 1 and "error:" in result.stderr and "EDGELLM_HOME" in result.stderr


def test_completion_can_be_shown() -> None:
    # Without detection by the name of the parent process, which is whatever runs the tests.
    result = edgellm("--show-completion", "bash", env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert result.returncode == 0 and "edgellm" in result.stdout


@pytest.mark.parametrize("verb", ["--help", "list -a", "engine status", "doctor --json", "--version"])
def test_a_closed_pipe_ends_every_verb_quietly(verb: str) -> None:
    """With a reader that is gone before the first byte."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "edgellm", *verb.split()]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("verb", ["--help", "list -a", "doctor"])
def test_a_full_disk_behind_stdout_is_one_error(verb: str) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "edgellm", *verb.split()]
        result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, check=False)
    lines = result.stderr.decode().splitlines()
    assert (result.returncode, lines[0], len(lines)) == (1, "error: the disk is full", 2)


@pytest.mark.parametrize("name", ["~nosuchuser/x", "x" * 5000, ".", "/", "/dev/null", "a\nb", "--", ""])
def test_names_that_are_no_model(name: str) -> None:
    result = edgellm("run", "--", name, "hi")
    assert result.returncode in (2, 3) and ("error:" in result.stderr or "Usage" in result.stderr)


@pytest.mark.parametrize("home", ["/proc/x", "/dev/null"])
def test_homes_that_cannot_be(home: str) -> None:
    result = edgellm("pull", "smollm2", env={"EDGELLM_HOME": home})
    assert result.returncode == 1 and "error: cannot use" in result.stderr


def test_errors_follow_json_from_the_environment_and_debug_shows_tracebacks() -> None:
    assert error(edgellm("show", "nosuch", env={"EDGELLM_JSON": "1"}))["code"] == "model-not-found"
    assert "Traceback" not in edgellm("show", "nosuch", env={"EDGELLM_DEBUG": "0"}).stderr
    command = [sys.executable, "-m", "edgellm", "show", "nosuch"]
    debugged = subprocess.run(command, capture_output=True, env={**os.environ, "EDGELLM_DEBUG": "1"}, check=False)
    assert b"Traceback" in debugged.stderr
