"""The question whether a tool may run, in a real terminal: every answer, a wrong one, and Ctrl-C."""

import sys
from collections.abc import Iterator

import pexpect
import pyte
import pytest

from edgellm.config_file import ConfigFile
from edgellm.settings import Settings

pytestmark = [pytest.mark.engine, pytest.mark.model]
PROMPT = r"\x1b\[\?2004h"
# An address that `fetch` refuses before anything is sent.
QUESTION = "Read http://127.0.0.1:9/page and tell me what it says."
MAY_IT = r"fetch reads the network\. May it\?"
CHOICE = r"\[y\] yes, in this chat   \[a\] always   \[n\] no, or Enter: "
ROWS, COLUMNS = 40, 100


class Talk:
    """A chat with `fetch` in a terminal, and what the terminal shows."""

    def __init__(self) -> None:
        command = ["-m", "edgellm", "chat", "smollm2", "--private", "--server", "never", "--tools", "fetch",
                   "--temp", "0", "--max-tokens", "60"]  # fmt: skip
        self.child = pexpect.spawn(sys.executable, command, encoding="utf-8", dimensions=(ROWS, COLUMNS), timeout=120)
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.Stream(self._screen)
        self.until(PROMPT)

    def until(self, pattern: str) -> None:
        self.child.expect(pattern)
        self._stream.feed(f"{self.child.before}{self.child.after}")

    def ask(self) -> None:
        self.child.send(f"{QUESTION}\r")
        self.until(MAY_IT)
        self.until(CHOICE)

    def say(self, answer: str) -> None:
        self.child.send(f"{answer}\r")

    @property
    def screen(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display)

    def leave(self) -> None:
        self.child.sendeof()
        self.child.expect(pexpect.EOF)
        self.child.close()
        assert self.child.exitstatus == 0


@pytest.fixture
def talk(with_engine: Settings) -> Iterator[Talk]:
    made = Talk()
    try:
        yield made
    finally:
        made.child.close(force=True)


def test_no_holds_for_the_chat(talk: Talk) -> None:
    talk.ask()
    assert talk.screen.count("fetch(url=") == 1  # the call stands there once, above the question
    talk.say("what")
    talk.until("y, a or n")
    talk.until(CHOICE)
    talk.say("n")
    talk.until("The user does not allow fetch")
    talk.until(PROMPT)
    talk.child.send(f"{QUESTION}\r")
    talk.until(PROMPT)
    assert talk.screen.count("May it?") == 1
    talk.leave()


def test_yes_is_for_this_chat_and_ctrl_c_is_a_no(talk: Talk, with_engine: Settings) -> None:
    talk.ask()
    talk.say("yes")
    talk.until("fetch failed")  # it ran, and refused the address
    talk.until(PROMPT)
    assert ConfigFile.read(with_engine.config_file).at(("allow",)) is None
    talk.leave()
    again = Talk()
    try:
        again.ask()
        again.child.sendintr()
        again.until("The user does not allow fetch")
        again.until(PROMPT)
        again.leave()
    finally:
        again.child.close(force=True)


def test_always_is_kept(talk: Talk, with_engine: Settings) -> None:
    talk.ask()
    talk.say("a")
    talk.until("fetch is always allowed now")
    talk.until("fetch failed")
    talk.until(PROMPT)
    assert ConfigFile.read(with_engine.config_file).at(("allow",)) == ["fetch"]
    talk.leave()
