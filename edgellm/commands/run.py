"""`edgellm run MODEL [PROMPT]`: one answer, on stdout and nothing else there."""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.chats.chat import Chat
from edgellm.documents.answers.citation import Basis, Citation
from edgellm.engine.sampling import Sampling
from edgellm.errors import EdgellmError, UsageError
from edgellm.exit_codes import ExitCode
from edgellm.run.telemetry import Stats
from edgellm.tools.record import CallRecord
from edgellm.ui import options
from edgellm.ui.citations import citation_fields, print_below
from edgellm.ui.console import stderr
from edgellm.ui.flags import answer_options, load_options, open_model, prepare_documents, require_documents
from edgellm.ui.interrupt import Interrupt
from edgellm.ui.live import final_lines, show_answer
from edgellm.ui.local_engine import building_workspace
from edgellm.ui.model_names import model_names
from edgellm.ui.options import FormFlags, LimitFlags, LoadFlags, QuietOutput, SamplingFlags, ToolFlags
from edgellm.ui.prompt import piped_input
from edgellm.ui.render import render
from edgellm.ui.server_model import AUTO, is_url, note_refusal, remote_model, with_tools
from edgellm.ui.tool_consent import prepare_tools
from edgellm.ui.tool_lines import print_sources

if TYPE_CHECKING:
    from edgellm.run.answer import AnswerStream
    from edgellm.run.answer_options import AnswerOptions
    from edgellm.serve.remote.model import RemoteModel


@dataclass(frozen=True, slots=True)
class RunAnswer:
    """The answer to one prompt, and how it was made; `sampling` holds the seed that was used.

    `citations` are the places in documents that bear the answer, `refused` whether they do not say it; `docs` names the
    documents, null without any. `basis` and `unknown_numbers` are those of `docs ask`.
    `doubt` says why the answer may be nonsense, by the self-test of the model; null if it passed, or a server answered.
    `calls` are the tools that were called, with their results.
    `server` is the address of the server that answered, null if the model was loaded here. Its memory and CPU time are
    then in `stats`, those for others who asked at the same time included; nothing was loaded.
    """

    model: str
    text: str
    threads: int
    kv_type: str
    sampling: Sampling
    stats: Stats
    doubt: str | None
    docs: str | None
    server: str | None
    calls: list[CallRecord]
    refused: bool
    basis: Basis
    citations: list[Citation]
    unknown_numbers: list[str]


def run(
    model: Annotated[
        str, typer.Argument(help="A model's name, or the path of a GGUF file.", autocompletion=model_names)
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROMPT]...", help="The question; piped input is appended.", callback=options.typed_words
        ),
    ] = None,
    prompt: Annotated[
        str, typer.Option("--prompt", "-p", help="The question, as an option.", callback=options.typed)
    ] = "",
    system: options.System = None,
    lora: options.Lora = None,
    docs: options.Docs = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text as it is, without the chat template.")] = False,
    workers: options.Workers = None,
    layers_here: options.LayersHere = None,
    server: options.Server = AUTO,
    stats: Annotated[bool, typer.Option("--stats", "--verbose", help="Print the numbers on stderr.")] = False,
    offline: options.Offline = False,
    *,
    load: LoadFlags,
    limit: LimitFlags,
    sampling: SamplingFlags,
    form: FormFlags,
    tool: ToolFlags,
    output: QuietOutput,
) -> RunAnswer:
    """Answer one prompt. The model may also be given as -m MODEL.

    \b
    Examples: edgellm run smollm2 "What is the capital of France?"
              edgellm run -m smollm2 -p "What is the capital of France?" --temp 0
              git diff | edgellm run smollm2 "Summarise this change:"
              edgellm run smollm2 "A city in France" --format city.schema.json
              edgellm run smollm2 --lora dates-lora.gguf "3 March 2024"
              edgellm run smollm2 --docs manuals "How long is the warranty?"
              edgellm run smollm2 --tools calculator "What is 17% of 2,340?"
              edgellm run qwen2.5-7b --workers 10.0.0.2,10.0.0.3 "What is the capital of France?"
    """
    text = "\n\n".join(part for part in (" ".join(words or ()), prompt, piped_input()) if part.strip())
    if docs is not None and raw:
        raise UsageError("--docs and --raw do not go together", why="passages stand in a message")
    if not text:
        name = shlex.quote(model)
        ask = f'edgellm run {name} "What is the capital of France?"'
        hint = f"edgellm chat {name}, or {ask}" if sys.stdin.isatty() else ask
        raise UsageError("there is no prompt", hint=hint)
    loading = load_options(load, system, lora=lora, workers=workers, layers_here=layers_here)
    here = building_workspace(offline=offline, quiet=output.silent)
    if not raw and not is_url(server):
        here.require_chat(model)
    chosen = answer_options(sampling, limit, form, here)
    require_documents(here, docs, chosen)
    talk: Chat | None = None
    with ExitStack() as stack:
        prepared = stack.enter_context(prepare_tools(here, tool, docs=docs, raw=raw, quiet=output.silent))
        server = with_tools(server, prepared)
        remote = remote_model(here, model, server, loading, docs=docs is not None, raw=raw, quiet=output.silent)
        begun = _begin(remote, text, chosen, stack, must=is_url(server), quiet=output.silent) if remote else None
        address = remote.address.url if remote and begun else None
        if remote and begun:
            stream, plan, threads, doubt = begun, remote.plan, remote.threads, None
        else:
            opened = stack.enter_context(open_model(here, model, loading, quiet=output.silent))
            found = prepare_documents(here, docs, quiet=output.silent) if docs is not None else None
            documents = stack.enter_context(found) if found else None
            how = _interruptible(chosen, stack)
            if documents or prepared:
                talk = Chat(opened, how, documents=documents, tools=prepared)
            stream = talk.stream(text) if talk else opened.answer_stream(text, how, raw=raw)
            plan, threads, doubt = opened.plan, opened.threads, opened.doubt
        shown = not output.as_json
        retry, quiet = chosen.limits.retry, output.quiet
        answer = show_answer(stream, live=not quiet, retry=retry, quiet=quiet) if shown else stream.answer
    checked = talk.found if talk else None
    result = RunAnswer(
        model, checked.answer if checked else answer.text, plan.n_threads, plan.kv_type, stream.sampling, answer.stats,
        doubt, docs, address, talk.calls if talk else [], **citation_fields(checked),
    )  # fmt: skip

    def show(result: RunAnswer) -> None:
        if talk:
            print_below(talk, quiet=output.quiet)
            print_sources(talk.calls)
        if stats:
            stderr().print(final_lines(result.stats, threads))

    render(output, result, show)
    if answer.finish_reason == "interrupted":
        raise typer.Exit(ExitCode.INTERRUPTED)
    stream.check()
    return result


def _interruptible(chosen: AnswerOptions, stack: ExitStack) -> AnswerOptions:
    """The same options, for an answer that the first Ctrl-C ends."""
    interrupt = stack.enter_context(Interrupt())
    return replace(chosen, limits=replace(chosen.limits, interrupted=interrupt.requested))


def _begin(
    remote: RemoteModel, text: str, chosen: AnswerOptions, stack: ExitStack, *, must: bool, quiet: bool
) -> AnswerStream | None:
    """The answer of a server; None if it refuses before a word, and the model can be loaded here."""
    try:
        return remote.answer_stream(text, _interruptible(chosen, stack))
    except EdgellmError as error:
        if must:
            raise
        stack.close()
        note_refusal(error, quiet=quiet)
        return None
