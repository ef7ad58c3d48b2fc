"""The line that the user types in a chat: editing, history within the session, a status line at the bottom.

prompt = ChatPrompt(status=lambda: "14.2 tok/s ...")
text = prompt.read()        # raises EOFError on Ctrl-D and KeyboardInterrupt on Ctrl-C
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from edgellm.ui.console import printable


class ChatPrompt:
    """Reads messages from a terminal."""

    def __init__(self, *, status: Callable[[], str], words: dict[str, str]) -> None:
        """`words` are the /commands to complete, with what they do."""
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import InMemoryHistory
        from prompt_toolkit.styles import Style

        completer = WordCompleter(list(words), meta_dict=words, sentence=True)
        style = Style.from_dict({"bottom-toolbar": "noreverse", "prompt": "bold"})
        self._session: PromptSession[str] = PromptSession(
            [("class:prompt", "> ")], history=InMemoryHistory(), completer=completer, complete_while_typing=True,
            bottom_toolbar=lambda: [("", printable(status()))] if status() else None, style=style,
        )  # fmt: skip

    def read(self) -> str:
        """One message; `\"\"\"` begins and ends one of several lines."""
        text = self._session.prompt()
        if not text.startswith('"""'):
            return text
        lines = [text[3:]]
        while not lines[-1].endswith('"""') or (len(lines) == 1 and not lines[0]):
            lines.append(self._session.prompt([("class:prompt", "… ")]))
        lines[-1] = lines[-1][:-3]
        return "\n".join(lines).strip("\n")


def piped_messages() -> Iterator[str]:
    """One message a line from a pipe, empty lines left out."""
    for line in sys.stdin.buffer:
        text = line.decode("utf-8", errors="replace").strip()
        if text:
            yield text
