"""In a real terminal: the live line, Ctrl-C, Ctrl-D, the bar; and nothing of them off a terminal."""

import os
import re
import shlex
import sys
from collections.abc import Iterator

import pexpect
import pytest

from edgellm.settings import Settings

pytestmark = [pytest.mark.engine, pytest.mark.model]
# The line editor asks for bracketed paste when it is ready.
PROMPT = r"\x1b\[\?2004h"
STATUS = r"tok/s  first token [\d.]+ s  context \d+/8,192  memory [\d.]+ [MG]B, [\d.]+ GB available"


@pytest.fixture
def chat(with_engine: Settings) -> Iterator["pexpect.spawn[str]"]:
    command = [sys.executable, "-m", "edgellm", "chat", "smollm2", "--temp", "0"]
    child = pexpect.spawn(command[0], command[1:], encoding="utf-8", dimensions=(30, 120), timeout=60)
    try:
        child.expect("Ctrl-D leaves")
        child.expect(PROMPT)
        yield child
    finally:
        child.close(force=True)


def test_an_answer_and_its_numbers(chat: "pexpect.spawn[str]") -> None:
    chat.send("What is the capital of France?\r")
    chat.expect(PROMPT)
    assert chat.before is not None and "Paris" in chat.before
    chat.send("/stats\r")
    chat.expect(r"ended by stop")
    chat.expect(PROMPT)
    chat.sendeof()
    chat.expect(pexpect.EOF)
    chat.close()
    assert chat.exitstatus == 0


def test_ctrl_c_stops_the_answer_and_keeps_the_session(chat: "pexpect.spawn[str]") -> None:
    chat.send("Count from 1 to 1000, one number a line.\r")
    chat.expect(STATUS)
    chat.sendintr()
    chat.send("typed ahead")
    chat.expect(r"\[stopped\]")
    assert chat.before is not None and "^C" not in chat.before and "typed" not in chat.before
    chat.expect(PROMPT)
    chat.expect("typed ahead")
    chat.sendintr()
    chat.expect("Ctrl-D or /exit leaves")
    chat.expect(PROMPT)
    chat.send("What is the capital of France?\r")
    chat.expect("Paris")
    chat.expect(PROMPT)
    chat.sendintr()
    chat.expect("again")
    chat.expect(PROMPT)
    chat.sendintr()
    chat.expect(pexpect.EOF)
    chat.close()
    assert chat.exitstatus == 0


def test_commands(chat: "pexpect.spawn[str]") -> None:
    chat.send("/hlp\r")
    chat.expect(r"did you mean /help\?")
    chat.send("/help\r")
    chat.expect("begin a new chat")
    chat.send("/clear\r")
    chat.expect("a new chat begins")
    chat.send("/set temp 9\r")
    chat.expect("a number from 0 to 5")
    chat.send("/set temp 0.5\r")
    chat.expect(r"temp +0\.5")


def test_ctrl_c_in_run_ends_with_130_and_what_there_is(with_engine: Settings) -> None:
    arguments = ["-m", "edgellm", "run", "smollm2", "Count from 1 to 1000.", "--temp", "0"]
    child = pexpect.spawn(sys.executable, arguments, encoding="utf-8", dimensions=(30, 120), timeout=60)
    child.expect(STATUS)
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    # The status line is gone from the screen, and the cursor is on a line of its own.
    assert child.before is not None and re.search(r"\x1b\[J(\r\n)?$", child.before)


def test_a_terminal_that_cannot_move_its_cursor_gets_the_answer_alone(with_engine: Settings) -> None:
    command = [sys.executable, "-m", "edgellm", "run", "smollm2", "What is the capital of France?", "--temp", "0"]
    environment = os.environ | {"TERM": "dumb"}
    output, status = pexpect.run(shlex.join(command), env=environment, withexitstatus=True, timeout=60)
    assert (output, status) == (b"The capital of France is Paris.\r\n", 0)
