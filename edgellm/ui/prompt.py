"""The line that the user types in a chat: editing, history, completion, an editor, a status line at the bottom.

prompt = ChatPrompt(status=lambda: "14.2 tok/s ...", words={"/help": "show this list"}, history=["earlier question"])
text = prompt.read()        # raises EOFError on Ctrl-D and KeyboardInterrupt on Ctrl-C
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from edgellm.text import read_stream, text_lines
from edgellm.ui.console import printable

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.key_binding import KeyBindings

QUOTES = '"""'
# Commands whose argument is a path.
PATHS = ("/file ", "/save ", "/load ")


class ChatPrompt:
    """Reads messages from a terminal."""

    def __init__(
        self,
        *,
        status: Callable[[], str],
        words: Mapping[str, str],
        names: Mapping[str, Callable[[], Sequence[str]]] = MappingProxyType({}),
        history: Sequence[str] = (),
    ) -> None:
        """`words` are the /commands to complete, with what they do; `names` what may stand after some of them.

        `history` are the questions of earlier chats, newest first.
        """
        from prompt_toolkit import PromptSession
        from prompt_toolkit.application import get_app
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.history import InMemoryHistory
        from prompt_toolkit.styles import Style

        style = Style.from_dict({"bottom-toolbar": "noreverse", "prompt": "bold"})
        # Only commands are completed, so a long pasted text is not searched at every key.
        is_command = Condition(lambda: get_app().current_buffer.text.startswith("/"))
        self._session: PromptSession[str] = PromptSession(
            history=InMemoryHistory(list(reversed(history))), style=style,
            completer=_completer(words, names), complete_while_typing=is_command, key_bindings=_keys(),
            enable_open_in_editor=True, tempfile_suffix=".txt",
            bottom_toolbar=lambda: [("", printable(status()))] if status() else None,
        )  # fmt: skip

    @property
    def line(self) -> str:
        """What is on the line now; after Ctrl-C, what was on it."""
        return self._session.default_buffer.text

    def read(self, default: str = "") -> str:
        """Read one message, beginning with `default`; `\"\"\"` begins and ends a message of several lines."""
        # Each call passes its prompt, because the session remembers the last one.
        text = self._session.prompt([("class:prompt", "> ")], default=default)
        if not text.startswith(QUOTES):
            return text
        lines = [text[len(QUOTES) :]]
        while not lines[-1].endswith(QUOTES):
            lines.append(self._session.prompt([("class:prompt", "… ")], default=""))
        lines[-1] = lines[-1].removesuffix(QUOTES)
        return "\n".join(lines).strip("\n")


def _keys() -> KeyBindings:
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _completer(words: Mapping[str, str], names: Mapping[str, Callable[[], Sequence[str]]]) -> Completer:
    """Commands; after some of them, paths or names."""
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter, WordCompleter
    from prompt_toolkit.document import Document

    commands = WordCompleter(list(words), meta_dict=dict(words), sentence=True)
    paths = PathCompleter(expanduser=True)

    class ChatCompleter(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
            text = document.text_before_cursor
            which: Completer = commands
            command, space, argument = text.partition(" ")
            if text.startswith(PATHS):
                which = paths
            elif space and command in names:
                which = WordCompleter(list(names[command]()))
            elif text.startswith("/"):
                argument = text
            else:
                return
            yield from which.get_completions(Document(argument), complete_event)

    return ChatCompleter()


def piped_input() -> str:
    """What was piped into standard input; empty when it is a terminal or closed. `NotText` if it is no text."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return ""
    return read_stream(sys.stdin.buffer, "the piped input")


def piped_messages() -> Iterator[str]:
    """The lines of standard input, without empty ones; raises `NotText` at one that is no text."""
    yield from filter(None, map(str.strip, text_lines(sys.stdin.buffer, "the piped input")))
