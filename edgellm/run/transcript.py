"""A chat as a file: Markdown to read, or a JSON document that `/load` reads again.

write(Path("chat.md"), "smollm2", messages)
messages = read(Path("chat.json"))
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from edgellm.errors import CorruptFile, FileAccessError, UsageError
from edgellm.files import write_atomically
from edgellm.run.chat_template import Message
from edgellm.run.chats import ChatStore, SavedChat

ROLES = ("system", "user", "assistant")
LARGEST_TEXT = 16_000_000


def markdown(model: str, messages: Sequence[Message]) -> str:
    """The chat for people."""
    return "".join([f"# A chat with {model}\n", *(f"\n## {m['role']}\n\n{m['content'].strip()}\n" for m in messages)])


def document(model: str, messages: Sequence[Message]) -> str:
    """The chat for programs."""
    return json.dumps({"model": model, "messages": list(messages)}, ensure_ascii=False, indent=2) + "\n"


def messages_of(store: ChatStore, chat: SavedChat) -> list[Message]:
    """All messages of a saved chat, the system message first, those that a summary covers included."""
    head: list[Message] = [{"role": "system", "content": chat.system}] if chat.system else []
    return [*head, *(Message(role=saved.role, content=saved.content) for saved in store.messages(chat.id))]


def write(path: Path, model: str, messages: Sequence[Message]) -> None:
    """Write a file that is not there yet: JSON if its name ends so, else Markdown."""
    if path.exists():
        raise UsageError(f"{path} exists already", hint="another name")
    text = (document if path.suffix == ".json" else markdown)(model, messages)
    write_atomically(path, text.encode(errors="replace"))


def read(path: Path) -> list[Message]:
    """The messages of a JSON document."""
    try:
        messages = json.loads(read_text(path))["messages"]
        found: list[Message] = [{"role": m["role"], "content": m["content"]} for m in messages]
        if not all(m["role"] in ROLES and isinstance(m["content"], str) for m in found):
            raise ValueError("a role or a content is not what it should be")
    except (ValueError, TypeError, KeyError, LookupError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        raise CorruptFile(f"{path} is no saved chat", why=why, hint="a file that /save NAME.json wrote") from error
    return found


def read_text(path: Path) -> str:
    """A text file whole.

    Raises:
        FileAccessError: it cannot be read.
        UsageError: it is no UTF-8 text, or too large for any context.
    """
    try:
        if not path.is_file():
            raise FileAccessError(f"there is no file {path}", hint="the path of a text file", path=str(path))
        with path.open("rb") as file:
            data = file.read(LARGEST_TEXT + 1)
    except (OSError, ValueError) as error:
        raise FileAccessError(f"cannot read {path}", why=str(error), path=str(path)) from error
    if len(data) > LARGEST_TEXT:
        raise UsageError(f"{path} is too large", why="no context holds 16 MB of text", hint="a part of it")
    if b"\0" in data:
        raise UsageError(f"{path} is no text file", why="it has zero bytes", hint="a text file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no UTF-8 text", why=str(error), hint="iconv -f LATIN1 -t UTF-8") from error
