"""`edgellm eval --tasks` as a user types it."""

from pathlib import Path

import pytest

from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error
from tests.evaluation.benchmark import write_tasks

pytestmark = [pytest.mark.engine, pytest.mark.model]


def test_tasks_of_the_user_on_the_embedded_model(with_engine: Settings, tmp_path: Path) -> None:
    """Once for people, and once more for programs, from what the first run stored."""
    write_tasks(with_engine.config / "tasks")
    shown = edgellm("eval", "smollm2", "--tasks", "toy_choice", "--fewshot", "1", "--limit", "2")
    assert shown.returncode == 0, shown.stderr
    head, *rows = shown.stdout.splitlines()
    assert head.split() == ["TASK", "SHOTS", "QUESTIONS", "METRIC", "SCORE", "ERROR"]
    assert [row.split()[:4] for row in rows] == [["toy_choice", "1", "2", name] for name in ("acc", "acc_norm")]
    assert "lm-eval 0." in shown.stderr and "8 requests, in" in shown.stderr
    found = data(
        edgellm("eval", "smollm2", "--tasks", "toy_choice", "--fewshot", "1", "--limit", "2", "--json", "--offline")
    )
    assert (found["n_requests"], found["n_reused"], found["n_tokens"]) == (8, 8, 0)


def test_what_does_not_go_together_is_refused_before_anything_is_loaded(with_engine: Settings, tmp_path: Path) -> None:
    both = error(edgellm("eval", "smollm2", "--tasks", "arc_easy", "--suite", "json", "--json"))
    assert both["code"] == "usage" and "no suite" in both["what"]
    nothing = error(edgellm("eval", "smollm2", "--tasks", ",", "--json"))
    assert "names no task" in nothing["what"]
    (tmp_path / "data").mkdir()
    missing = edgellm("eval", "smollm2", "--tasks", "arc_easy", "--data", str(tmp_path / "data"), "--json")
    assert missing.returncode == 6
    refused = error(missing)
    assert refused["code"] == "corrupt-file" and "hf download allenai/ai2_arc" in refused["try"]
