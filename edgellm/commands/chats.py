"""`edgellm chats ls|show|search|export|rm`: the saved chats."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.commands.workspace import workspace
from edgellm.ui import options

if TYPE_CHECKING:
    from edgellm.run.chats import ChatStore

app = typer.Typer(help="The saved chats: list, show, search, export, remove.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="A chat's id, or its beginning.")]


class Format(str, Enum):
    """How a chat is exported."""

    MD = "md"
    JSON = "json"


def _store() -> ChatStore:
    from edgellm.run.chats import ChatStore

    return ChatStore.open(workspace().settings.chats)


@app.command("list", hidden=True)
@app.command("ls")
def list_chats(
    limit: Annotated[int, typer.Option("--limit", "-n", min=-1, help="So many at most; -1: all.")] = -1,
    as_json: options.Json = False,
) -> None:
    """List the chats, the latest first.

    Example: edgellm chats ls -n 10
    """
    from edgellm.ui.console import note, print_json, print_table

    with _store() as store:
        chats = store.chats(limit)
    if as_json:
        print_json(chats)
    elif chats:
        rows = [(c.id, _local(c.updated), c.model, str(c.n_messages), c.title) for c in chats]
        print_table(("ID", "LAST USED", "MODEL", "MESSAGES", "BEGINS"), rows, right=(3,))
    else:
        note("no chats yet; edgellm chat begins one")


@app.command()
def show(chat: Id, as_json: options.Json = False) -> None:
    """Show a chat.

    Example: edgellm chats show 7f3a
    """
    from edgellm.run.transcript import markdown, messages_of
    from edgellm.ui.console import print_json, print_line, to_json

    with _store() as store:
        found = store.get(chat)
        if as_json:
            print_json({**to_json(found), "messages": store.messages(found.id)})
        else:
            print_line(markdown(found.model, messages_of(store, found)).rstrip("\n"))


@app.command()
def search(
    words: Annotated[list[str], typer.Argument(help="Words that a message must have, all of them.")],
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="So many messages at most.")] = 50,
    as_json: options.Json = False,
) -> None:
    """Search in all messages, in any language.

    \b
    Examples: edgellm chats search furnace temperature
              edgellm chats search 高炉
    """
    from edgellm.ui.console import note, print_json, print_table

    with _store() as store:
        found = store.search(" ".join(words), limit)
    if as_json:
        print_json(found)
    elif found:
        rows = [(f.chat, _local(f.created), f.role, f.excerpt) for f in found]
        print_table(("ID", "WHEN", "WHO", "TEXT"), rows)
    else:
        note("nothing found")


@app.command()
def export(
    chat: Id,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file. [default: stdout]")] = None,
    form: Annotated[Format | None, typer.Option("--format", help="[default: by the file's name, or md]")] = None,
    as_json: options.Json = False,
) -> None:
    """Write a chat as Markdown or JSON; the chat command /load reads the latter.

    Example: edgellm chats export 7f3a -o chat.md
    """
    from edgellm.errors import UsageError
    from edgellm.files import write_atomically
    from edgellm.run.transcript import document, markdown, messages_of
    from edgellm.ui.console import note, print_raw

    with _store() as store:
        found = store.get(chat)
        messages = messages_of(store, found)
    by_name = output is not None and output.suffix == ".json"
    wanted = form or (Format.JSON if as_json or by_name else Format.MD)
    text = (document if wanted is Format.JSON else markdown)(found.model, messages)
    if output is None:
        print_raw(text)
    elif output.exists():
        raise UsageError(f"{output} exists already", hint="another name")
    else:
        write_atomically(output, text.encode(errors="replace"))
        note(f"written: {output}")


@app.command()
def rm(
    chats: Annotated[list[str] | None, typer.Argument(help="Ids of chats, or their beginnings.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all chats.")] = False,
    as_json: options.Json = False,
) -> None:
    """Remove chats for good: their text is overwritten. Does not ask.

    Example: edgellm chats rm 7f3a
    """
    from edgellm.errors import UsageError
    from edgellm.ui.console import note, print_json

    if bool(chats) == everything:
        raise UsageError("which chats?", hint="edgellm chats rm ID, or --all")
    with _store() as store:
        ids = [chat.id for chat in store.chats()] if everything else [store.get(name).id for name in chats or ()]
        store.remove(ids)
    if as_json:
        print_json([{"id": chat} for chat in ids])
    else:
        note(f"removed: {', '.join(ids)}" if ids else "there was nothing to remove")


def _local(moment: str) -> str:
    """A stored moment as the user's clock shows it."""
    from datetime import datetime

    return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M}"
