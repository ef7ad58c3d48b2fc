"""Text for people and for scripts: units, safe text, progress lines, errors."""

import io
import re
import sys
from collections.abc import Callable

import pytest

from edgellm import units
from edgellm.errors import ModelNotFound, UsageError
from edgellm.progress import Progress
from edgellm.ui.console import folded, note, note_fields, print_fields, print_table, printable
from edgellm.ui.progress import bar_line, lasting, progress
from edgellm.ui.render import render_error, to_json
from edgellm.units import parse_size

SHOW_CURSOR = "\x1b[?25h"


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
    assert units.speed(11.42e9) == "11.4 GB/s"
    assert [units.rate(r) for r in (14.23, 321.9)] == ["14.2 tok/s", "322 tok/s"]


def test_text_from_outside_cannot_drive_the_terminal() -> None:
    hostile = "a\x1b]0;title\x07\x1b[2J\x9b31m\r\x08b\tc\nd é 世界"
    assert printable(hostile) == "a]0;title[2J31mb\tc\nd é 世界"


def test_errors_say_what_why_and_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    error = ModelNotFound("there is no \x1b[31mmodel", why="did you mean x?", hint="edgellm list", name="y")
    render_error(error, command="show", as_json=False)
    assert capsys.readouterr().err == "error: there is no [31mmodel\n  did you mean x?\n  try: edgellm list\n"
    render_error(error, command="show", as_json=True)
    captured = capsys.readouterr()
    assert captured.out == "" and '"code": "model-not-found"' in captured.err and '"name": "y"' in captured.err


def test_tables_are_not_cut_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "WHAT"), [("a", "x" * 300), ("b", "[bold]y")])
    out = capsys.readouterr().out
    assert "x" * 300 in out and "[bold]y" in out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Terminal]:
    """A terminal of so many columns; what is printed is its text without the codes for bold and dim."""

    def opened(width: int) -> Terminal:
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("COLUMNS", str(width))
        return terminal

    return opened


def rows_of(terminal: Terminal) -> list[str]:
    return [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue()).splitlines()]


MODELS = [("bitnet-2b", "1.19 GB", "yes", "MIT", "a ternary model of Microsoft's"), ("phi", "2 GB", "no", "MIT", "x")]
HEADERS = ("NAME", "SIZE", "FITS", "LICENCE", "WHAT")


def test_a_lasting_bar_goes_with_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("edgellm.ui.progress.PATIENCE_SECONDS", 0.0)
    report = lasting()
    for stage in ("reranking", "again"):
        report(Progress(stage, 5, 20))
        assert f"{stage}" in screen.getvalue() and screen.getvalue().count(SHOW_CURSOR) == (stage == "again")
        report(Progress(stage, 20, 20))
    assert screen.getvalue().count(SHOW_CURSOR) == 2, "nothing is drawn over what follows"


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_a_table_fits_its_terminal_and_says_what_it_leaves_out(width: int, narrow: Callable[[int], Terminal]) -> None:
    terminal = narrow(width)
    print_table(HEADERS, MODELS, spare=("LICENCE", "WHAT"), cut=True)
    rows = rows_of(terminal)
    assert max(map(len, rows)) <= width and rows[1].startswith("bitnet-2b  1.19 GB  yes") and rows[2].startswith("phi")
    left_out = [header for header in HEADERS if header not in rows[0]]
    assert (" ".join(rows[3:]) == "") if not left_out else all(header in " ".join(rows[3:]) for header in left_out)


def test_a_table_that_is_too_wide_all_the_same_becomes_blocks(narrow: Callable[[int], Terminal]) -> None:
    terminal = narrow(24)
    print_table(("FILE", "SIZE", "WHY"), [("/a/path/that/is/rather/long", "5 MB", "nobody uses it any more")])
    assert rows_of(terminal) == [
        "/a/path/that/is/rather/l", "ong", "  SIZE  5 MB", "  WHY   nobody uses it", "        any more"
    ] or rows_of(terminal)[1:] == ["  SIZE  5 MB", "  WHY   nobody uses it", "        any more"]  # fmt: skip


def test_fields_and_errors_break_between_words(narrow: Callable[[int], Terminal]) -> None:
    terminal = narrow(30)
    print_fields([("model", "one two three four five six"), ("file", "/" + "x" * 40)])
    note_fields([("/help", "one two three four five six")])
    assert rows_of(terminal)[:3] == ["model  one two three four five", "       six", "file   /" + "x" * 40]
    error = ModelNotFound("a long clause about what happened here", why="and why it did so", hint="edgellm list -a")
    terminal = narrow(30)
    render_error(error, command="show", as_json=False)
    assert rows_of(terminal) == [
        "error: a long clause about", "  what happened here", "  and why it did so", "  try: edgellm list -a"
    ]  # fmt: skip


def test_folding() -> None:
    assert folded("aaa bbb ccc", 7) == "aaa bbb\n  ccc" and folded("aaa bbb ccc", 100_000) == "aaa bbb ccc"
    assert folded("aaa bbb", 7, begun=4, indent=4) == "aaa\n    bbb" and folded("a\nb", 7) == "a\nb"
    assert folded("世界 世界", 6) == "世界\n  世界" and folded("x" * 9, 5) == "x" * 9


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
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("edgellm.ui.progress.PATIENCE_SECONDS", 0.0)
    with progress() as report:
        report(Progress("building", 10, 100))
        report(Progress("checking", 1_000_000, 2_000_000, "B"))
    assert "building" in screen.getvalue() and "10/100" in screen.getvalue() and "1.0/2.0 MB" in screen.getvalue()


@pytest.mark.parametrize("width", [30, 40, 60, 79, 120])
def test_a_progress_line_fits_and_keeps_its_figures(width: int) -> None:
    name = "downloading qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf"
    line = bar_line(name, 0.2, "845/4190 MB", "0:01:10", "11.4 MB/s", width).plain
    assert len(line) <= width and "845/4190 MB" in line and line.startswith("dow")
    assert ("━" in line, "0:01:10" in line) == (width == 120, width == 120)
    answering = bar_line("answering", 0.5, "529/1000", "0:10:00", "31.7 tok/s  errors 1", width).plain
    assert len(answering) <= width and "529/1000  " in answering and ("━" in answering) == (width > 40)


def test_json_takes_dataclasses_with_their_properties() -> None:
    from edgellm.models.fit.memory import MemoryNeed

    assert to_json({"need": (MemoryNeed(1, 2, 3, 4, 5),)})["need"][0]["total"] == 15


def test_sizes() -> None:
    sizes = ("1.8GB", "900M", "1.5 GiB", "42", "3kb", "4G", "4GB", "4GiB", "1T")
    assert [parse_size(text, "--ram") for text in sizes] == [
        1_800_000_000, 900_000_000, 1_610_612_736, 42, 3000, 4 * 10**9, 4 * 10**9, 4 << 30, 10**12,
    ]  # fmt: skip
    for text in ("", "GB", "-1GB", "1e9", "0MB", "4,5GB", "1PB", "9" * 30):
        with pytest.raises(UsageError, match="no size"):
            parse_size(text, "--ram")


def test_lines_for_people_go_above_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("edgellm.ui.progress.PATIENCE_SECONDS", 0.0)
    with progress() as report:
        report(Progress("reading", 1, 3))
        note("a.txt: it is empty")
        with progress() as inner:
            inner(Progress("downloading", 1, 3))
    before, _, after = terminal.getvalue().partition("a.txt: it is empty")
    assert "reading" in before and re.search(r"\x1b\[2K(?:\x1b\[[\d;]*m)*$", before), "the bar's line is erased first"
    assert "reading" in after, "the bar is drawn again below"
    written = terminal.getvalue()
    report(Progress("reading", 2, 3))
    assert terminal.getvalue() == written, "nothing after the end"
    note("more")
    assert terminal.getvalue().removeprefix(written).endswith("more\x1b[0m\n")
