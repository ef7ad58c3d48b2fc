"""The line that the user types in a chat: editing, history, completion, an editor, a status line at the bottom.

prompt = ChatPrompt(status=lambda: "14.2 tok/s ...", words={"/help": "show this list"}, history=["earlier question"])
text = prompt.read()        # raises EOFError on Ctrl-D and KeyboardInterrupt on Ctrl-C
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

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
        settings: Sequence[str] = (),
        history: Sequence[str] = (),
    ) -> None:
        """`words` are the /commands to complete, with what they do; `settings` the names after /set.

        `history` are the questions of earlier chats, the latest first; what is typed now is kept by the caller.
        """
        from prompt_toolkit import PromptSession
        from prompt_toolkit.application import get_app
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.history import InMemoryHistory
        from prompt_toolkit.styles import Style

        style = Style.from_dict({"bottom-toolbar": "noreverse", "prompt": "bold"})
        # Only commands are completed; a long pasted text must not be looked through at every key.
        is_command = Condition(lambda: get_app().current_buffer.text.startswith("/"))
        self._session: PromptSession[str] = PromptSession(
            history=InMemoryHistory(list(reversed(history))), style=style,
            completer=_completer(words, settings), complete_while_typing=is_command, key_bindings=_keys(),
            enable_open_in_editor=True, tempfile_suffix=".txt",
            bottom_toolbar=lambda: [("", printable(status()))] if status() else None,
        )  # fmt: skip

    def read(self, default: str = "") -> str:
        """One message, `default` to begin with; `\"\"\"` begins and ends one of several lines."""
        # The prompts are given with every call: the session remembers the last one.
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


def _completer(words: Mapping[str, str], settings: Sequence[str]) -> Completer:
    """Commands; after some of them, paths or the names of settings."""
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter, WordCompleter
    from prompt_toolkit.document import Document

    commands = WordCompleter(list(words), meta_dict=dict(words), sentence=True)
    paths, names = PathCompleter(expanduser=True), WordCompleter(list(settings))

    class ChatCompleter(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
            text = document.text_before_cursor
            which, argument = commands, text
            if text.startswith(PATHS):
                which, argument = paths, text.partition(" ")[2]  # type: ignore[assignment]
            elif text.startswith("/set "):
                which, argument = names, text.partition(" ")[2]
            elif not text.startswith("/"):
                return
            yield from which.get_completions(Document(argument), complete_event)

    return ChatCompleter()


def piped_messages() -> Iterator[str]:
    """One message a line from a pipe, empty lines left out."""
    for line in sys.stdin.buffer:
        text = line.decode("utf-8", errors="replace").strip()
        if text:
            yield text
