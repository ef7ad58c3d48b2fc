"""`edgellm chats ls|show|search|rename|export|rm`: the saved chats."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from edgellm.chats.store import ChatStore, Found, SavedChat, SavedMessage
from edgellm.chats.transcript import CitedMessage, document, markdown, messages_of
from edgellm.errors import UsageError
from edgellm.files import write_atomically
from edgellm.ui.console import note, print_line, print_raw, print_table
from edgellm.ui.options import JsonOutput
from edgellm.ui.render import carried, render
from edgellm.workspace import workspace

Id = Annotated[str, typer.Argument(help="A chat's id, or its beginning.")]


class Format(str, Enum):
    """How a chat is exported."""

    MD = "md"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class WholeChat:
    """A saved chat with its messages; `hidden` is 1 where the model no longer sees a message. Times are UTC.

    `docs` names the documents that its questions are put to, null for none.
    """

    id: str
    model: str
    system: str | None
    created: str
    updated: str
    n_messages: int
    title: str
    docs: str | None
    messages: list[SavedMessage]


@dataclass(frozen=True, slots=True)
class ExportedChat:
    """A chat as `/load` reads it; `path` is the file that was written, null without --output."""

    model: str
    messages: list[CitedMessage]
    path: Path | None


@dataclass(frozen=True, slots=True)
class RemovedChat:
    """A chat that is gone."""

    id: str


def _store() -> ChatStore:
    return ChatStore.open(workspace().settings.chats)


def list_chats(
    limit: Annotated[int, typer.Option("--limit", "-n", min=-1, help="List at most this many; -1: all.")] = -1,
    *,
    output: JsonOutput,
) -> list[SavedChat]:
    """List the chats, the latest first.

    Example: edgellm chats ls -n 10
    """
    with _store() as store:
        return render(output, store.chats(limit), _print_chats)


def _print_chats(chats: list[SavedChat]) -> None:
    if chats:
        rows = [(c.id, _local(c.updated), c.model, str(c.n_messages), c.title) for c in chats]
        print_table(
            ("ID", "LAST USED", "MODEL", "MESSAGES", "BEGINS"), rows, right=(3,), spare=("MESSAGES", "MODEL"), cut=True
        )
    else:
        note("no chats yet; edgellm chat begins one")


def show(chat: Id, *, output: JsonOutput) -> WholeChat:
    """Show a chat.

    Example: edgellm chats show 7f3a
    """
    with _store() as store:
        found = store.get(chat)
        whole = WholeChat(**asdict(found), messages=store.messages(found.id))
        return render(
            output, whole, lambda _: print_line(markdown(found.model, messages_of(store, found)).rstrip("\n"))
        )


def search(
    words: Annotated[list[str], typer.Argument(help="Words that a message must all contain.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Find at most this many messages.")] = 50,
    *,
    output: JsonOutput,
) -> list[Found]:
    """Search in all messages, in any language.

    \b
    Examples: edgellm chats search furnace temperature
              edgellm chats search 高炉
    """
    with _store() as store:
        return render(output, store.search(" ".join(words), limit), _print_found)


def _print_found(found: list[Found]) -> None:
    if found:
        rows = [(f.chat, _local(f.created), f.role, f.excerpt) for f in found]
        print_table(("ID", "WHEN", "WHO", "TEXT"), rows)
    else:
        note("nothing found")


def rename(
    chat: Id,
    title: Annotated[str, typer.Argument(help="The new title; '' for the beginning of the first question.")],
    *,
    output: JsonOutput,
) -> SavedChat:
    """Give a chat a title.

    Example: edgellm chats rename 7f3a "Blast furnaces"
    """
    with _store() as store:
        store.rename(store.get(chat).id, title)
        return render(output, store.get(chat), lambda found: note(f"{found.id} is now called: {found.title}"))


def export(
    chat: Id,
    file: Annotated[Path | None, typer.Option("--output", "-o", help="The file. [default: stdout]")] = None,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="[default: by the file's name, or md]", envvar="EDGELLM_CHATS_EXPORT_FORMAT"),
    ] = None,
    *,
    output: JsonOutput,
) -> ExportedChat:
    """Write a chat as Markdown or JSON; the chat command /load reads the latter.

    Example: edgellm chats export 7f3a -o chat.md
    """
    with _store() as store:
        found = store.get(chat)
        messages = messages_of(store, found)
    by_name = file is not None and file.suffix == ".json"
    wanted = form or (Format.JSON if output.as_json or by_name else Format.MD)
    text = (document if wanted is Format.JSON else markdown)(found.model, messages)
    if file is not None and file.exists():
        raise UsageError(f"{file} exists already", hint="another name")
    if file is not None:
        write_atomically(file, text.encode(errors="replace"))
    shown = carried(text, sys.stdout.encoding) if wanted is Format.JSON else text
    exported = ExportedChat(found.model, messages, file)
    return render(output, exported, lambda _: note(f"written: {file}") if file else print_raw(shown))


def rm(
    chats: Annotated[list[str] | None, typer.Argument(help="Ids of chats, or their beginnings.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all chats.", envvar="EDGELLM_CHATS_RM_ALL")] = False,
    *,
    output: JsonOutput,
) -> list[RemovedChat]:
    """Remove chats for good: their text is overwritten. Does not ask.

    Example: edgellm chats rm 7f3a
    """
    if bool(chats) == everything:
        raise UsageError("which chats?", hint="edgellm chats rm ID, or --all")
    with _store() as store:
        ids = [chat.id for chat in store.chats()] if everything else [store.get(name).id for name in chats or ()]
        store.remove(ids)
    said = f"removed: {', '.join(ids)}" if ids else "there was nothing to remove"
    return render(output, [RemovedChat(chat) for chat in ids], lambda _: note(said))


def _local(moment: str) -> str:
    """A stored moment as the user's clock shows it."""
    return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}"
