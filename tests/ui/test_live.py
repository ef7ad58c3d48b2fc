"""The live line on an emulated screen: whatever it does, the text reads as if it were not there."""

import io
import itertools
import sys

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.run.generation import Event, Finished, Text
from edgellm.run.telemetry import Meter
from edgellm.ui.live import AnswerView, column_after

WIDTH, HEIGHT = 20, 30


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
    events: list[Event] = [*map(Text, pieces), Finished("stop")]
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
    "pieces",
    [
        ["01234567890123456789", "ABC", "DEF"],
        ["0123456789", "0123456789", "\n", "x"],
        ["ab\tc", "d"],
        ["x" * 45, "\n\n", "y"],
        ["", "", "z"],
    ],
)
def test_nothing_is_lost_at_the_edge(pieces: list[str]) -> None:
    assert screen_after(shown(pieces)) == screen_after("".join(pieces))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.sampled_from("abc \né"), max_size=25), max_size=12))
def test_any_answer_reads_as_without_the_line(pieces: list[str]) -> None:
    assert screen_after(shown(pieces)) == screen_after("".join(pieces))


def test_the_line_is_there_while_it_answers() -> None:
    output = shown(["Hello", " world"])
    assert "tok/s" in output and "tok/s" not in "".join(screen_after(output))
    before_the_end = output[: output.rindex("\x1b[J")]
    assert screen_after(before_the_end)[1].startswith("0.0 tok/s") or "tok/s" in screen_after(before_the_end)[1]


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
