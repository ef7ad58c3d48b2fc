"""`run` and piped `chat` on the real engine and the embedded model."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error

pytestmark = [pytest.mark.engine, pytest.mark.model]
QUESTION = "What is the capital of France?"


@pytest.fixture(autouse=True)
def home(with_engine: Settings) -> Settings:
    return with_engine


def test_only_the_answer_is_on_stdout_and_it_is_right_and_repeats() -> None:
    first = edgellm("run", "smollm2", QUESTION, "--temp", "0")
    second = edgellm("run", "smollm2", QUESTION, "--temp", "0")
    assert first.returncode == 0 and first.stdout == second.stdout
    assert "Paris" in first.stdout and first.stdout.endswith("\n") and first.stderr == ""


def test_the_model_and_the_prompt_as_other_tools_take_them() -> None:
    expected = edgellm("run", "smollm2", QUESTION, "--temp", "0").stdout
    for arguments in (
        ("-m", "smollm2", "-p", QUESTION, "--temperature", "0", "--num-ctx", "2048", "--seed", "-1"),
        ("SmolLM2:latest", *QUESTION.split(), "--temp", "0"),
        (*QUESTION.split(), "--model=smollm2", "--temp", "0"),
    ):
        result = edgellm("run", *arguments)
        assert (result.returncode, result.stdout) == (0, expected), result.stderr
    stopped = edgellm("run", "smollm2", QUESTION, "--temp", "0", "--stop", " is", "--stop", "\\n")
    assert stopped.stdout == "The capital of France\n"
    assert edgellm("run", "smollm2", QUESTION, "--stop", "").returncode == 2


def test_json_has_text_and_numbers() -> None:
    answer = data(edgellm("run", "smollm2", QUESTION, "--temp", "0", "--json", "--seed", "7", "-t", "1", "-c", "512"))
    stats = answer["stats"]
    assert "Paris" in answer["text"] and stats["finish_reason"] == "stop"
    assert stats["prompt_tokens"] > 10 and stats["completion_tokens"] > 3 and stats["n_ctx"] == 512
    assert all(stats[key] > 0 for key in ("prefill_rate", "decode_rate", "ttft_seconds", "load_seconds"))
    assert stats["peak_resident_bytes"] > 90_000_000
    assert 0.1 < stats["cores_used"] < 1.5 and stats["cores_used"] * stats["seconds"] == pytest.approx(
        stats["cpu_seconds"], rel=1e-6
    )
    assert stats["energy_joules"] is None or stats["energy_joules"] > 0
    assert answer["sampling"]["seed"] == 7 and answer["threads"] == 1


def test_stats_go_to_stderr() -> None:
    result = edgellm("run", "smollm2", QUESTION, "--temp", "0", "--stats")
    assert "Paris" in result.stdout and "tok/s" not in result.stdout
    assert all(word in result.stderr for word in ("tok/s", "first token", "resident", "context", "cores in use"))


def test_piped_input_is_appended_to_the_prompt() -> None:
    piped = data(edgellm("run", "smollm2", "Question:", "--temp", "0", "--json", "-n", "8", stdin=QUESTION))
    typed = data(edgellm("run", "smollm2", f"Question:\n\n{QUESTION}", "--temp", "0", "--json", "-n", "8"))
    assert piped["text"] == typed["text"] and piped["stats"]["prompt_tokens"] == typed["stats"]["prompt_tokens"]
    alone = data(edgellm("run", "smollm2", "--temp", "0", "--json", stdin=QUESTION))
    assert "Paris" in alone["text"]


def test_input_that_is_no_utf_8_and_control_characters() -> None:
    assert edgellm("run", "smollm2", "--temp", "0", "-n", "2", stdin=b" hi \x1b[2J\x7f").returncode == 0
    assert edgellm("run", "smollm2", "--temp", "0", "-n", "2", stdin=b"\xff\xfe hi \x00\x1b[2J").returncode == 2


def test_the_limit_and_a_raw_completion() -> None:
    answer = data(edgellm("run", "smollm2", "1, 2, 3, 4, 5, 6, 7,", "--raw", "--temp", "0", "-n", "3", "--json"))
    assert answer["stats"]["completion_tokens"] == 3 and answer["stats"]["finish_reason"] == "length"
    assert "8" in answer["text"]


def test_a_seed_repeats_a_hot_answer() -> None:
    def sample(seed: str) -> str:
        return edgellm(
            "run", "smollm2", "Tell me a story.", "--temp", "1.5", "-n", "12", "--seed", seed, "-t", "1"
        ).stdout

    assert sample("3") == sample("3") != sample("4")


def test_piped_chat_remembers_and_prints_only_answers() -> None:
    result = edgellm("chat", "smollm2", "--temp", "0", stdin=f"{QUESTION}\n\nRepeat that.\n")
    lines = result.stdout.strip().splitlines()
    assert result.returncode == 0 and "Paris" in lines[0] and len(lines) >= 2
    assert result.stderr == ""


def test_the_options_come_from_the_environment_too() -> None:
    env = {"EDGELLM_MAX_TOKENS": "2", "EDGELLM_TEMP": "0", "EDGELLM_JSON": "1"}
    assert data(edgellm("run", "smollm2", QUESTION, env=env))["stats"]["completion_tokens"] == 2


def test_a_closed_pipe_ends_quietly() -> None:
    command = [sys.executable, "-m", "edgellm", "run", "smollm2", "Tell me a long story.", "--temp", "0", "-n", "200"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(5)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_context_larger_than_the_model_and_a_prompt_longer_than_the_context() -> None:
    large = edgellm("run", "smollm2", "hi", "-c", "9000", "--json")
    assert (large.returncode, error(large)["code"]) == (2, "context-too-large")
    long = edgellm("run", "smollm2", "word " * 600, "-c", "256", "--json")
    assert (long.returncode, error(long)["code"]) == (2, "prompt-too-long")
    assert error(long)["facts"]["prompt_tokens"] > 600 and error(long)["facts"]["n_ctx"] == 256


def test_no_prompt() -> None:
    result = edgellm("run", "smollm2", stdin="  \n")
    assert result.returncode == 2 and "there is no prompt" in result.stderr and "try:" in result.stderr


def test_a_truncated_file_and_a_file_that_is_no_gguf(smollm2: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(smollm2.read_bytes()[:5_000_000])
    result = edgellm("run", str(cut), "hi", "--json")
    assert result.returncode == 6 and "truncated" in error(result)["why"]
    text = tmp_path / "text.gguf"
    text.write_text("<!DOCTYPE html><html>not found</html>")
    result = edgellm("run", str(text), "hi", "--json")
    assert result.returncode == 6 and "HTML" in error(result)["why"]


def test_the_second_start_answers_soon() -> None:
    """Not a timing of the model: a start that took minutes would mean that something is done again."""
    start = time.monotonic()
    assert edgellm("run", "smollm2", "hi", "-n", "1", "-q").returncode == 0
    assert time.monotonic() - start < 20


def test_a_piped_chat_answers_in_json_lines() -> None:
    result = edgellm("chat", "smollm2", "--private", "--temp", "0", "--json", stdin=f"{QUESTION}\nRepeat that.\n")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["command"] for line in lines] == ["chat", "chat"] and result.stderr == ""
    assert "Paris" in lines[0]["data"]["text"] and lines[0]["data"]["chat"] is None
    assert all(line["data"]["stats"]["completion_tokens"] > 0 for line in lines)


def test_every_sampling_option_works_in_every_verb_that_generates() -> None:
    hot = ["--temp", "1", "--typical-p", "0.9", "--xtc-probability", "1", "--xtc-threshold", "0.05", "--seed", "3"]
    answer = data(edgellm("run", "smollm2", QUESTION, *hot, "-n", "8", "--json"))
    assert (answer["sampling"]["typical_p"], answer["sampling"]["xtc_probability"]) == (0.9, 1.0)
    plain = data(edgellm("run", "smollm2", QUESTION, "--temp", "1", "--seed", "3", "-n", "8", "--json"))
    assert plain["text"] != answer["text"]
