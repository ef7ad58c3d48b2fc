"""The verbs that need no answer from a model: listing, showing, removing, status, doctor, help, errors."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgellm as edgellm_package
from edgellm.cli import VERBS, Verb
from edgellm.engine.builds.patches import PatchStack
from edgellm.models.local.store import InstalledModel, Store
from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error
from tests.shapes import commands, help_of


def test_alone_it_tells_where_things_stand_and_never_fails() -> None:
    result = edgellm()
    assert result.returncode == 0 and "not built" in result.stdout and "next: edgellm engine build" in result.stderr


def test_every_verb_has_help_with_an_example() -> None:
    for verb in commands():
        assert re.search(r"Examples?: .*edgellm", help_of(verb)), verb
    listed = edgellm("bench", "--help")
    assert listed.returncode == 0 and "Examples: edgellm bench smollm2" in listed.stdout


def test_an_unknown_verb_and_a_wrong_option_are_usage_errors() -> None:
    assert "did you mean 'pull'" in edgellm("pul").stderr
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
    table = edgellm("list", "-a").stdout
    assert "Apache-2.0" in table
    groups = [
        "CHAT, TERNARY OR 1-BIT",
        "ternary-bonsai-8b ",
        "CHAT\n",
        "smollm2 ",
        "qwen3-4b ",
        "TEXT, NOT",
        "trilm",
        "EMBED",
    ]
    assert sorted(groups, key=table.index) == groups


@pytest.mark.model
def test_show(with_engine: Settings, smollm2: Path) -> None:
    shown = data(edgellm("show", "smollm2", "--json"))
    assert shown["architecture"] == "llama" and shown["context"] == 8192 and shown["chat_template"] is True
    assert shown["parameters"] == 134_515_008 and sum(shown["tensor_types"].values()) == 272
    assert shown["path"] == data(edgellm("show", shown["path"], "--json"))["path"]
    assert "8,192 tokens" in edgellm("show", "smollm2").stdout


def test_show_of_a_model_not_pulled_yet_says_what_its_recipe_knows() -> None:
    result = edgellm("show", "SmolLM2")
    assert result.returncode == 0 and "98.4 MB" in result.stdout and result.stderr == "next: edgellm pull smollm2\n"
    packed = data(edgellm("show", "bitnet:packed", "--json"))
    assert packed["name"] == "bitnet-2b" and packed["size"] == 790_355_520 and packed["fits"] in (True, False)
    unknown = edgellm("show", "user/repo")
    assert unknown.returncode == 3 and "edgellm pull user/repo" in unknown.stderr


def test_help_and_version_as_verbs_and_verbs_of_other_tools() -> None:
    assert edgellm("help").stdout == edgellm("--help").stdout
    assert edgellm("help", "chats", "ls").stdout == edgellm("chats", "ls", "--help").stdout
    version = json.loads(edgellm("version", "--json").stdout)["data"]["version"]
    assert f"edgellm {version}\n" == edgellm("version").stdout == edgellm("--version").stdout
    result = edgellm("download", "smollm2")
    assert result.returncode == 2 and "no such command 'download'\n  did you mean 'pull'?" in result.stderr
    assert error(edgellm("delete", "x", "--json"))["why"] == "did you mean 'rm'?"


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
    report = data(result, code=1)
    failed = {check["name"]: check["fix"] for check in report["checks"] if not check["ok"]}
    assert {"compiler", "engine", "answer"} <= set(failed) and all(failed.values())
    assert failed["engine"] == "edgellm engine build" and "install" in failed["compiler"]


@pytest.mark.engine
@pytest.mark.model
def test_doctor_asks_without_the_options_of_the_user(with_engine: Settings) -> None:
    answer = data(edgellm("doctor", "--json", env={"EDGELLM_CTX_SIZE": "9000"}))["checks"][-1]
    assert answer["name"] == "answer" and "Paris" in answer["detail"]


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


def test_every_line_of_the_help_fits() -> None:
    listed = edgellm("--help", env={"COLUMNS": "80"}).stdout
    assert "..." not in listed.partition("Commands:")[2]
    assert [line.split()[0] for line in listed.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()] == [
        name for name, verb in VERBS.items() if not (isinstance(verb, Verb) and verb.hidden)
    ]


def test_verbs_import_at_the_top() -> None:
    """A verb's module is only imported when the verb runs: nothing is left to put off."""
    for verb in commands().values():
        path = Path(edgellm_package.__file__ or "").parent / "commands" / f"{verb.place.partition(':')[0]}.py"
        nested = [
            node
            for function in ast.walk(ast.parse(path.read_text()))
            if isinstance(function, ast.FunctionDef)
            for node in ast.walk(function)
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert not nested, path


def test_a_shell_completes_verbs_and_options() -> None:
    def completed(line: str) -> list[str]:
        words = line.split(" ")
        env = {"_EDGELLM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        command = [sys.executable, "-c", "from edgellm.cli import app; app(prog_name='edgellm')"]
        result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, check=False)
        return result.stdout.split()

    assert completed("edgellm pu") == ["pull"] and completed("edgellm chats s") == ["show", "search"]
    assert completed("edgellm run --typ") == ["--typical-p"]


@pytest.mark.parametrize(
    ("arguments", "command", "words"),
    [
        (["list", "--nonsense", "--json"], "list", "no such option: --nonsense"),
        (["--json", "pul"], None, "no such option: --json"),
        (["pul", "--json"], None, "no such command 'pul'"),
        (["chats", "shw", "--json"], "chats", "no such command 'shw'"),
        (["chats", "list", "-n", "x", "--json"], "chats ls", "invalid value for '--limit'"),
        (["run", "--json"], "run", "missing argument 'model'"),
        (["run", "--json", "smollm2", "hi", "--temp", "99"], "run", "less than or equal to 5"),
        (["completion", "--json", "tcsh"], "completion", "invalid value for 'shell'"),
    ],
)
def test_what_the_parser_refuses_is_a_json_error_too(arguments: list[str], command: str | None, words: str) -> None:
    result = edgellm(*arguments)
    assert result.returncode == 2 and words in error(result)["what"] and error(result)["code"] == "usage"
    assert json.loads(result.stderr)["command"] == command
    assert error(result)["try"] == " ".join(["edgellm", *([command] if command else []), "--help"])


def test_the_environment_asks_for_json_as_well() -> None:
    result = edgellm("chats", env={"EDGELLM_JSON": "1"})
    assert result.returncode == 2 and error(result)["what"] == "missing command"
    literal = edgellm("list", "--", "--json")
    assert literal.returncode == 2 and literal.stderr.startswith("error: ")


def test_completion_in_json() -> None:
    script = data(edgellm("completion", "fish", "--json"))
    assert script["shell"] == "fish" and script["script"] == edgellm("completion", "fish").stdout.rstrip("\n")
