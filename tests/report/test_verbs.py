"""`--report` as a user types it; a log needs no model. `bench --report`: tests/commands/test_bench.py."""

from pathlib import Path

import pytest

from edgellm.evaluation.log import write_log
from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error
from tests.report.evaluations import header, item


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_log(tmp_path / "log.jsonl", header(), [item(n) for n in range(12)])
    write_log(tmp_path / "base.jsonl", header("base"), [item(n, score=0.0) for n in range(12)])
    return tmp_path / "log.jsonl"


@pytest.mark.engine
def test_a_log_against_a_log(with_engine: Settings, log: Path) -> None:
    page = log.with_name("report.html")
    done = edgellm("eval", str(log), "--against", str(log.with_name("base.jsonl")), "--report", str(page))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"report: {page}") == 1 and "Against base" in page.read_text()
    found = data(edgellm("eval", str(log), "--report", str(log.with_name("charts.svg")), "--json"))
    assert found["suites"][0]["total"]["n_items"] == 6
    assert log.with_name("charts.svg").read_text().count("<title>") == 1


@pytest.mark.engine
def test_nothing_is_done_for_a_report_that_cannot_be_written(with_engine: Settings, log: Path) -> None:
    result = edgellm("eval", str(log), "--report", str(log / "r.html"), "--json")
    assert result.returncode == 1 and error(result)["code"] == "file-access"
    result = edgellm("bench", "smollm2", "--report", "speed.pdf", "--json")
    assert result.returncode == 2 and error(result)["try"] == "--report speed.html"
