"""Text for people and for scripts: units, safe text, progress lines, errors."""

import io
import sys

import pytest

from edgellm.errors import ModelNotFound, UsageError
from edgellm.progress import Progress
from edgellm.ui import units
from edgellm.ui.console import print_error, print_table, printable, to_json
from edgellm.ui.progress import progress
from edgellm.ui.units import parse_size


def test_units() -> None:
    assert [units.size(n) for n in (0, 999, 98_362_432, 1_187_801_280, 23e9)] == [
        "0 B",
        "999 B",
        "98.4 MB",
        "1.19 GB",
        "23.0 GB",
    ]
    assert [units.duration(s) for s in (0.314, 12.4, 75)] == ["0.31 s", "12 s", "1:15 min"]
    assert [units.count(n) for n in (1000, 134_515_008, 2_400_000_000)] == ["1,000", "135M", "2.4B"]
    assert [units.rate(r) for r in (14.23, 321.9)] == ["14.2 tok/s", "322 tok/s"]


def test_text_from_outside_cannot_drive_the_terminal() -> None:
    hostile = "a\x1b]0;title\x07\x1b[2J\x9b31m\r\x08b\tc\nd é 世界"
    assert printable(hostile) == "a]0;title[2J31mb\tc\nd é 世界"


def test_errors_say_what_why_and_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    error = ModelNotFound("there is no \x1b[31mmodel", why="did you mean x?", hint="edgellm list", name="y")
    print_error(error, as_json=False)
    assert capsys.readouterr().err == "error: there is no [31mmodel\n  did you mean x?\n  try: edgellm list\n"
    print_error(error, as_json=True)
    captured = capsys.readouterr()
    assert captured.out == "" and '"code": "model-not-found"' in captured.err and '"name": "y"' in captured.err


def test_tables_are_not_cut_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "WHAT"), [("a", "x" * 300), ("b", "[bold]y")])
    out = capsys.readouterr().out
    assert "x" * 300 in out and "[bold]y" in out


def test_progress_off_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("edgellm.ui.progress.time.monotonic", lambda: now[0])
    with progress() as report:
        for step in range(100):
            now[0] = step * 0.1
            report(Progress("building", step, 100))
        report(Progress("checking", 5_000_000, 10_000_000, "B"))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["building  10/100", "building  60/100", "checking  5.00 MB of 10.0 MB"]


def test_progress_that_is_over_at_once_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress() as report:
        report(Progress("loading", 1, 2))
    with progress(quiet=True) as report:
        report(Progress("loading", 1, 2))
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("edgellm.ui.progress.PATIENCE_SECONDS", 0.0)
    with progress() as report:
        report(Progress("building", 10, 100))
        report(Progress("checking", 1_000_000, 2_000_000, "B"))
    assert "building" in screen.getvalue() and "10/100" in screen.getvalue() and "1.0/2.0 MB" in screen.getvalue()


def test_json_takes_dataclasses_with_their_properties() -> None:
    from edgellm.models.memory import MemoryNeed

    assert to_json({"need": (MemoryNeed(1, 2, 3, 4, 5),)})["need"][0]["total"] == 15


def test_sizes() -> None:
    assert [parse_size(text, "--ram") for text in ("1.8GB", "900M", "1.5 GiB", "42", "3kb")] == [
        1_800_000_000, 900_000_000, 1_610_612_736, 42, 3000,
    ]  # fmt: skip
    for text in ("", "GB", "-1GB", "1e9", "0MB", "1TB", "9" * 30):
        with pytest.raises(UsageError, match="no size"):
            parse_size(text, "--ram")
