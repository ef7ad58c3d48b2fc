"""`edgellm chat [MODEL]`: the interactive session."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.chats.chat import Chat
from edgellm.chats.store import ChatStore, SavedChat
from edgellm.documents.shelf import Shelf
from edgellm.errors import ContextFixed, EdgellmError, UsageError
from edgellm.exit_codes import ExitCode
from edgellm.settings import DEFAULT_MODEL
from edgellm.ui import options
from edgellm.ui.chat_models import ChatModels
from edgellm.ui.chat_screen import ChatAnswer, ChatScreen
from edgellm.ui.console import note
from edgellm.ui.flags import (
    answer_options,
    load_options,
    prepare_documents,
    require_documents,
)
from edgellm.ui.local_engine import building_workspace
from edgellm.ui.model_names import model_names
from edgellm.ui.options import FormFlags, LimitFlags, LoadFlags, QuietOutput, SamplingFlags, ToolFlags
from edgellm.ui.prompt import piped_messages
from edgellm.ui.server_model import AUTO, is_url, note_refusal, with_tools
from edgellm.ui.tool_consent import prepare_tools

if TYPE_CHECKING:
    from edgellm.library import Documents


def chat(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model's name, or the path of a GGUF file. [default: the chat's, or smollm2]",
            autocompletion=model_names,
        ),
    ] = None,
    go_on: Annotated[bool, typer.Option("--continue", help="Go on with the latest chat.")] = False,
    chat_id: Annotated[str | None, typer.Option("--id", help="Go on with this chat; `edgellm chats ls` lists.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Save nothing.")] = False,
    system: options.System = None,
    docs: options.Docs = None,
    lora: options.Lora = None,
    workers: options.Workers = None,
    layers_here: options.LayersHere = None,
    server: options.Server = AUTO,
    offline: options.Offline = False,
    *,
    load: LoadFlags,
    limit: LimitFlags,
    sampling: SamplingFlags,
    form: FormFlags,
    tool: ToolFlags,
    output: QuietOutput,
) -> ChatAnswer | None:
    """Talk to a model, with live numbers; the chat is saved as it goes. The model may also be given as -m MODEL.

    Tokens per second, context and memory show while it answers. Without a terminal, each line of standard input is a
    question; with --json each answer is then one JSON document on a line of its own.

    \b
    Examples: edgellm chat smollm2
              edgellm chat --continue
              edgellm chat --id 7f3a09 --on-loop retry
              edgellm chat smollm2 --docs manuals
              edgellm chat smollm2 --tools calculator,clock
    """
    resumed = go_on or chat_id is not None
    if resumed and (private or system is not None):
        raise UsageError("a saved chat goes on as it is", why="--private and --system are for a new one")
    here = building_workspace(offline=offline, quiet=output.silent)
    names = Shelf(here.settings.documents).names
    with ExitStack() as stack:
        store = None if private else stack.enter_context(ChatStore.open(here.settings.chats))
        saved = None
        if resumed and store is not None:
            saved = store.get(chat_id) if chat_id is not None else store.latest()
            docs = docs or _docs_of(saved, names(), quiet=output.silent)
        name = model or (saved.model if saved else DEFAULT_MODEL)
        if not is_url(server):
            here.require_chat(name)
        chosen = answer_options(sampling, limit, form, here)
        require_documents(here, docs, chosen)
        prepared = stack.enter_context(prepare_tools(here, tool, docs=docs, quiet=output.silent))
        if not is_url(server):  # with a model of a server they run here, between the steps of its answers
            server = with_tools(server, prepared)
        loading = load_options(load, system, lora=lora, workers=workers, layers_here=layers_here)
        models = stack.enter_context(ChatModels(here, loading, server, quiet=output.silent))
        talk = Chat(models.open(name), chosen, store=store, saved=saved, tools=prepared)

        def load_here(error: EdgellmError) -> bool:
            if is_url(server) or not models.may_load(error):
                return False
            note_refusal(error, quiet=output.silent)
            talk.use(models.load_here(error.n_ctx if isinstance(error, ContextFixed) else None))
            return True

        in_use: Documents | None = None

        def use_documents(name: str | None) -> None:
            nonlocal in_use
            found = stack.enter_context(prepare_documents(here, name, quiet=output.silent)) if name else None
            talk.use_documents(found)
            if in_use is not None:
                in_use.close()
            in_use = found

        if docs is not None:
            use_documents(docs)
        screen = ChatScreen(
            talk, switch=lambda name: talk.use(models.switch(name)), load_here=load_here,
            reopen=lambda: talk.use(models.reopen()), use_documents=use_documents,
            collections=names, quiet=output.quiet,
        )  # fmt: skip
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            return screen.answer_lines(piped_messages(), output)
        try:
            screen.run()
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        return None


def _docs_of(saved: SavedChat, names: Sequence[str], *, quiet: bool) -> str | None:
    """The documents that a saved chat used, if they are still there."""
    if saved.docs is None or saved.docs in names:
        return saved.docs
    if not quiet:
        note(f"the documents of this chat are gone ({saved.docs}); the model answers alone")
    return None
