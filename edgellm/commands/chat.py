"""`edgellm chat [MODEL]`: the interactive session."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from edgellm.commands.completion import model_names
from edgellm.commands.workspace import workspace
from edgellm.ui import options

DEFAULT_MODEL = "smollm2"


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
    private: Annotated[bool, typer.Option("--private", help="Save nothing.", envvar="EDGELLM_PRIVATE")] = False,
    system: options.System = None,
    ctx_size: options.ContextSize = None,
    kv: options.KVType = None,
    max_memory: options.MaxMemory = None,
    max_tokens: options.MaxTokens = -1,
    max_time: options.MaxTime = None,
    loop_guard: options.Guard = True,
    on_loop: options.OnLoop = options.LoopAction.STOP,
    threads: options.Threads = None,
    temp: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repeat_penalty: options.RepeatPenalty = None,
    seed: options.Seed = None,
    form: options.Format = None,
    grammar: options.Grammar = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
    offline: options.Offline = False,
) -> None:
    """Talk to a model, with live numbers; the chat is saved as it goes.

    Tokens per second, context and memory show while it answers.

    \b
    Examples: edgellm chat smollm2
              edgellm chat --continue
              edgellm chat --id 7f3a09 --on-loop retry
    """
    from functools import partial

    from edgellm.commands.answering import (
        choose_limits,
        choose_loading,
        choose_sampling,
        choose_structure,
        load_model,
        require_chat,
    )
    from edgellm.commands.conversation import Conversation
    from edgellm.errors import UsageError
    from edgellm.run.chat_record import ChatRecord
    from edgellm.run.chats import ChatStore

    resumed = go_on or chat_id is not None
    if resumed and (private or system is not None):
        raise UsageError("a saved chat goes on as it is", why="--private and --system are for a new one")
    sampling_for = partial(
        choose_sampling, seed=seed, temperature=temp, top_k=top_k, top_p=top_p, min_p=min_p,
        repeat_penalty=repeat_penalty,
    )  # fmt: skip
    loading_for = partial(
        choose_loading, ctx_size=ctx_size, threads=threads, system=system, force=force, kv=kv, max_memory=max_memory
    )
    here = workspace(offline=offline)
    with ExitStack() as stack:
        store = None if private else stack.enter_context(ChatStore.open(here.settings.chats))
        saved = None
        if resumed and store is not None:
            saved = store.get(chat_id) if chat_id is not None else store.latest()
        name = model or (saved.model if saved else DEFAULT_MODEL)
        require_chat(here, name)
        path, recipe = here.model_file(name, quiet=quiet)
        structure = choose_structure(here, form, grammar)
        load_options = loading_for(recipe)
        loaded = load_model(here, path, load_options, quiet=quiet)
        _ = loaded.session.template  # a model without one is refused before anything is typed
        record = ChatRecord(store, name, load_options.system)
        if saved is not None and store is not None:
            record, loaded.session.messages = ChatRecord.resume(store, saved)
            if name != saved.model:
                record.use_model(name, saved.system)
        limits = choose_limits(max_tokens, max_time, loop_guard, on_loop)
        conversation = Conversation(
            here, name, loaded, load_options, record, sampling_for(recipe), limits,
            sampling_for=sampling_for, loading_for=loading_for, structure=structure, quiet=quiet,
        )  # fmt: skip
        try:
            if sys.stdin.isatty() and sys.stdout.isatty():
                conversation.talk()
            else:
                conversation.answer_pipe()
        finally:
            conversation.note_use()
