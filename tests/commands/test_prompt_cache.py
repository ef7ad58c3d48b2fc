"""The prompt cache as a user meets it: run, chat and batch in processes of their own, and who leaves nothing there."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import edgellm as api
from edgellm.models.local.prompt_files import PromptFiles
from edgellm.run import prompt_cache
from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error

pytestmark = [pytest.mark.engine, pytest.mark.model]
# So long that no machine reads it in no time.
SYSTEM = "You know the following rivers well. " + " ".join(
    f"River {n} is {17 * n % 900} km long and flows by the town of Number{n}." for n in range(24)
)
GREEDY = ("--temp", "0", "--max-tokens", "8", "--ctx-size", "2048", "--server", "never", "--threads", "1")


@pytest.fixture(autouse=True)
def home(with_engine: Settings) -> Settings:
    return with_engine


def kept(settings: Settings) -> list[int]:
    """How many tokens the kept prompts have."""
    return [len(found.tokens) for _, found in PromptFiles(settings.prompts, 0).all() if found]


def ask(question: str, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = data(edgellm("run", "smollm2", question, "-s", SYSTEM, *GREEDY, "--json", *more))
    return found


def test_a_document_is_read_once(home: Settings) -> None:
    first = ask("How long is River 7?")
    n_prompt = first["stats"]["prompt_tokens"]
    assert first["stats"]["restored_tokens"] == 0 and len(kept(home)) == 1
    other = ask("Which towns?")
    assert n_prompt - 40 < other["stats"]["restored_tokens"] < n_prompt and len(kept(home)) == 1
    shown = edgellm("run", "smollm2", "How long is River 7?", "-s", SYSTEM, *GREEDY, "--stats")
    assert f"{n_prompt - 1:,} of them from disk)" in shown.stderr and first["text"].strip() == shown.stdout.strip()
    [path] = [path for path, _ in PromptFiles(home.prompts, 0).all()]
    with path.open("r+b") as file:
        file.seek(-1000, 2)
        file.write(b"damaged")
    assert ask("Which towns?")["stats"]["restored_tokens"] == 0


@pytest.mark.soak
def test_fifty_kills_leave_only_whole_prompts_and_the_next_run_works(home: Settings) -> None:
    chance, files = random.Random(50), PromptFiles(home.prompts, 0)
    for n in range(50):
        command = [sys.executable, "-m", "edgellm", "run", "smollm2", f"{n} rivers?", "-s", f"{n} {SYSTEM}", *GREEDY]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            time.sleep(chance.uniform(0.5, 6))
            child.kill()
        for _, found in files.all():
            assert found is not None and files.read(found) is not None
    assert ask("Which towns?")["text"] and not files.unfinished()
    assert ask("How long is River 7?")["stats"]["restored_tokens"] > 400


def test_nothing_is_kept_where_nothing_is_wanted(home: Settings) -> None:
    ask("Which towns?", "--prompt-cache", "off")
    assert kept(home) == []


def test_a_size_that_is_none_is_refused() -> None:
    found = error(edgellm("run", "smollm2", "hi", "--prompt-cache", "much", "--json"))
    assert found["what"] == "'much' is no size" and "--prompt-cache" in found["try"]


def talk(*arguments: str) -> dict[str, Any]:
    result = edgellm(
        "chat", *arguments, "--threads", "1", "--temp", "0", "--max-tokens", "8", "--json", stdin="Which towns?\n"
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)["data"]["stats"]
    return found


def test_a_chat_goes_on_where_it_was_and_a_private_one_leaves_nothing(home: Settings) -> None:
    assert talk("smollm2", "--private", "-s", SYSTEM)["restored_tokens"] == 0 and kept(home) == []
    first = talk("smollm2", "-s", SYSTEM)
    assert len(kept(home)) == 1
    assert talk("--continue")["restored_tokens"] >= first["prompt_tokens"]


def test_a_batch_reads_its_common_beginning_once(home: Settings, tmp_path: Path) -> None:
    rows = tmp_path / "rows.txt"
    rows.write_text("Which towns?\nHow long is River 3?\nAnd River 4?\n")

    def batch(name: str) -> tuple[int, list[str]]:
        output = tmp_path / name
        more = ("--slots", "2", "--seed", "1", "--ctx-size", "2048", "--max-tokens", "8", "--threads", "1")
        found = data(edgellm("batch", str(rows), "-o", str(output), "-m", "smollm2", "-s", SYSTEM, *more, "--json"))
        texts = [json.loads(line)["response"]["body"]["choices"] for line in output.read_text().splitlines()]
        # The first row of the first batch computes what the others share, in one go with its own question.
        return found["tally"]["restored_tokens"], [json.dumps(text) for text in texts[1:]]

    n_restored, first = batch("one.jsonl")
    [n_kept] = kept(home)
    assert n_restored == 0 and n_kept > 400
    n_restored, again = batch("two.jsonl")
    assert n_restored == n_kept and again == first and kept(home) == [n_kept]


def test_python_programs_keep_prompts_too_unless_told_otherwise(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_cache, "LEAST_SECONDS", 0.0)
    secret, text = (" ".join(f"{n}" for n in range(first, first + 60)) for first in (100, 200))
    with api.open("smollm2", n_ctx=512, prompt_cache=0) as model:
        model.ask(text, max_tokens=2, temperature=0)
    assert kept(home) == []
    with api.open("smollm2", n_ctx=512) as model:
        chat = model.chat(max_tokens=2, temperature=0)  # which is not saved
        chat.ask(secret)
        assert kept(home) == []
        stats = model.ask(text, max_tokens=2, temperature=0).stats
    assert stats.restored_tokens == 0 and len(kept(home)) == 1
    with api.open("smollm2", n_ctx=512) as model:
        stats = model.ask(text, max_tokens=2, temperature=0).stats
    assert stats.restored_tokens == stats.prompt_tokens - 1
