"""A chat as a file: Markdown for people, or a JSON document that `/load` reads.

write(Path("chat.md"), "smollm2", messages)
messages = read(Path("chat.json"))
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.documents.answers.citation import Citation, place
from edgellm.errors import CorruptFile, UsageError
from edgellm.files import write_atomically
from edgellm.run.message import Message
from edgellm.text import read_text
from edgellm.tools.record import CallRecord, call_from

if TYPE_CHECKING:
    from edgellm.chats.store import ChatStore, SavedChat

ROLES = ("system", "user", "assistant")


class CitedMessage(Message, total=False):
    """A message; an answer from documents has the citations that bear it, one with tools its calls."""

    citations: list[dict[str, Any]]
    calls: list[dict[str, Any]]


def cited(role: str, content: str, citations: Sequence[Citation], calls: Sequence[CallRecord] = ()) -> CitedMessage:
    """A message with its citations and its calls, if it has any."""
    message = CitedMessage(role=role, content=content)
    if calls:
        message["calls"] = [asdict(each) for each in calls]
    if citations:
        message["citations"] = [asdict(each) for each in citations]
    return message


def markdown(model: str, messages: Sequence[CitedMessage]) -> str:
    """The chat for people."""
    parts = [f"\n## {m['role']}\n\n{_calls(m)}{m['content'].strip()}\n{_sources(m)}" for m in messages]
    return "".join([f"# A chat with {model}\n", *parts])


def _calls(message: CitedMessage) -> str:
    """The calls of a message, a quotation each, in front of the answer that they led to."""
    found = [call_from(each) for each in message.get("calls", ())]
    return "".join(f"> `{each.line}`: {' '.join(each.text.split())}\n\n" for each in found)


def _sources(message: CitedMessage) -> str:
    """The citations of a message, a list item each."""
    found = [Citation(**each) for each in message.get("citations", ())]
    lines = [f"- [{each.number}] {place(each)}: “{' '.join(each.quote.split())}”\n" for each in found]
    calls = [call_from(each) for each in message.get("calls", ())]
    places = {each.place: each.title for call in calls if not call.error for each in call.sources}
    lines += [f"- {title}: {where}\n" for where, title in places.items()]
    return "".join(["\n" * bool(lines), *lines])


def document(model: str, messages: Sequence[CitedMessage]) -> str:
    """The chat for programs."""
    return json.dumps({"model": model, "messages": list(messages)}, ensure_ascii=False, indent=2) + "\n"


def messages_of(store: ChatStore, chat: SavedChat) -> list[CitedMessage]:
    """All messages of a saved chat, the system message first, including those that a summary covers."""
    head = [CitedMessage(role="system", content=chat.system)] if chat.system else []
    return [*head, *(cited(each.role, each.content, each.citations, each.calls) for each in store.messages(chat.id))]


def write(path: Path, model: str, messages: Sequence[CitedMessage]) -> None:
    """Write a new file: JSON if its name ends in .json, otherwise Markdown.

    Raises:
        UsageError: the file exists.
    """
    if path.exists():
        raise UsageError(f"{path} exists already", hint="another name")
    text = (document if path.suffix == ".json" else markdown)(model, messages)
    write_atomically(path, text.encode(errors="replace"))


def read(path: Path) -> list[Message]:
    """The messages of a JSON document.

    Raises:
        FileAccessError, CorruptFile: it cannot be read, or is not a saved chat.
    """
    try:
        found_in = json.loads(read_text(path))
        messages = found_in.get("data", found_in)["messages"]  # `chats export --json` has an envelope around it
        found: list[Message] = [{"role": m["role"], "content": m["content"]} for m in messages]
        if not all(m["role"] in ROLES and isinstance(m["content"], str) for m in found):
            raise ValueError("a role is unknown, or a content is not a text")
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"
        raise CorruptFile(f"{path} is not a saved chat", why=why, hint="a file that /save NAME.json wrote") from error
    return found
