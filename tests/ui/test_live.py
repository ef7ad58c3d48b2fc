"""The live line on an emulated screen: whatever it does, the text reads as if it were not there."""

import io
import itertools
import sys

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.run.events import End, Event, Text
from edgellm.run.telemetry import Meter
from edgellm.ui.cursor import Cursor, column_after
from edgellm.ui.live import AnswerView, status_line

WIDTH, HEIGHT = 20, 110


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen_after(output: str) -> list[str]:
    screen = pyte.Screen(WIDTH, HEIGHT)
    screen.set_mode(pyte.modes.LNM)  # as a terminal's driver turns "\n" into "\r\n"
    pyte.Stream(screen).feed(output)
    return [line.rstrip() for line in screen.display]


def shown(pieces: list[str]) -> str:
    """What an answer of these tokens writes to a terminal of 20 columns."""
    events: list[Event] = [*map(Text, pieces), End("stop")]
    terminal = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", str(WIDTH))
        patch.setattr("edgellm.ui.live.REFRESH_SECONDS", 0.0)
        meter = Meter(n_ctx=100)
        with AnswerView(meter) as view:
            for event in meter.watch(events):
                view.show(event)
    return terminal.getvalue()


@pytest.mark.parametrize(
    ("pieces", "rows"),
    [
        (["01234567890123456789", "ABC", "DEF"], ["01234567890123456789", "ABCDEF"]),
        (["0123456789", "0123456789", "\n", "x"], ["01234567890123456789", "x"]),
        (["The capital of Fran", "ce is Paris."], ["The capital of", "France is Paris."]),
        (["The capital of F", "r", "a", "n", "c", "e"], ["The capital of", "France"]),
        (["a full row of twenty", " ", "x"], ["a full row of twenty", "x"]),
        (["a full row of twenty", " ", "\n", "x"], ["a full row of twenty", "x"]),
        (["a row of nineteen c", " ", "x"], ["a row of nineteen c", "x"]),
        (["    indented stays where it is"], ["    indented stays", "where it is"]),
        (["- " + "x" * 21], ["-", "x" * 20, "x"]),
        (["ab\tc", "d"], ["ab      cd"]),
        (["x" * 45, "\n\n", "y"], ["x" * 20, "x" * 20, "x" * 5, "", "y"]),
        (["", "", "z"], ["z"]),
    ],
)
def test_lines_break_between_words(pieces: list[str], rows: list[str]) -> None:
    assert screen_after(shown(pieces))[: len(rows) + 1] == [*rows, ""]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("abc \né"), max_size=15), max_size=7))
def test_any_answer_reads_as_it_is_and_no_word_is_divided(pieces: list[str]) -> None:
    rows, text = screen_after(shown(pieces)), "".join(pieces)
    assert "".join("".join(rows).split()) == "".join(text.split())
    if max(map(len, text.split()), default=0) < WIDTH:
        assert " ".join(rows).split() == text.split()
    assert rows == screen_after(shown([text])), "whatever the pieces are"


def test_between_wide_characters_a_line_may_break() -> None:
    cursor = Cursor(5)
    assert cursor.write("a 世界世界") == "a 世界世界" and cursor.column == 2


def test_a_terminal_that_becomes_narrower() -> None:
    cursor = Cursor(20)
    cursor.write("one two three")
    cursor.resize(8)
    assert cursor.column == 5
    assert cursor.write(" four") == " fo\r\x1b[6C\x1b[K\nfour"


def test_the_line_is_there_while_it_answers() -> None:
    output = shown(["Hello", " world"])
    assert "tok/s" in output and "tok/s" not in "".join(screen_after(output))
    before_the_end = output[: output.rindex("\x1b[J")]
    assert screen_after(before_the_end)[1].startswith("0.0 tok/s") or "tok/s" in screen_after(before_the_end)[1]


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_the_line_fits_and_keeps_what_matters(width: int) -> None:
    meter = Meter(n_ctx=131_072)
    list(meter.watch([Text("x"), End("stop")]))
    line = status_line(meter.stats(), repeated=1, saved="chat 7f3a09 saved", width=width)
    assert len(line) < width and "tok/s" in line and "1/131,072" in line
    assert line.endswith("no loop  chat 7f3a09 saved"[: width - 1]) or width < 60
    assert ("available" in line) == (width == 140)
    assert status_line(meter.stats(), repeated=7, width=width).startswith("repeats x7")


def test_the_column_is_that_of_the_terminal() -> None:
    for text in map("".join, itertools.product("ab\n", repeat=7)):
        screen = pyte.Screen(5, 30)
        screen.set_mode(pyte.modes.LNM)
        pyte.Stream(screen).feed(text)
        assert column_after(text, 0, 5) == screen.cursor.x, repr(text)


@pytest.mark.parametrize(
    ("text", "column"), [("世", 2), ("aa世", 4), ("aaa世", 5), ("aaaa世", 2), ("aaaaa世", 2), ("\t", 5), ("é", 1)]
)
def test_wide_characters_and_tabs(text: str, column: int) -> None:
    """Two cells that do not fit go to the next row whole; a tab stops at the edge. The emulator above does neither."""
    assert column_after(text, 0, 5) == column
