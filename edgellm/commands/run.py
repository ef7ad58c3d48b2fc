"""`edgellm run MODEL [PROMPT]`: one answer, on stdout and nothing else there."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from edgellm.commands.completion import model_names
from edgellm.commands.workspace import piped_input, workspace
from edgellm.ui import options


def run(
    model: Annotated[
        str, typer.Argument(help="A model's name, or the path of a GGUF file.", autocompletion=model_names)
    ],
    prompt: Annotated[str, typer.Argument(help="The question; piped input is appended.")] = "",
    system: options.System = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text as it is, without the chat template.")] = False,
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
    stats: Annotated[bool, typer.Option("--stats", help="Print the numbers on stderr at the end.")] = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    offline: options.Offline = False,
) -> None:
    """Answer one prompt.

    \b
    Examples: edgellm run smollm2 "What is the capital of France?"
              git diff | edgellm run smollm2 "Summarise this change:"
              edgellm run smollm2 "A city in France" --format city.schema.json
    """
    from edgellm.commands.answering import (
        choose_limits,
        choose_loading,
        choose_sampling,
        choose_structure,
        load_model,
        stream_answer,
    )
    from edgellm.errors import UsageError
    from edgellm.ui.console import print_json, stderr
    from edgellm.ui.interrupt import Interrupt
    from edgellm.ui.live import final_lines

    text = "\n\n".join(part for part in (prompt, piped_input()) if part.strip())
    if not text:
        raise UsageError("there is no prompt", hint=f'edgellm run {model} "What is the capital of France?"')
    here = workspace(offline=offline)
    path, recipe = here.model_file(model, quiet=quiet or as_json)
    sampling = choose_sampling(
        recipe, seed, temperature=temp, top_k=top_k, top_p=top_p, min_p=min_p, repeat_penalty=repeat_penalty
    )
    structure = choose_structure(here, form, grammar)
    if structure is not None:
        sampling = structure.constrain(sampling)
    load_options = choose_loading(
        recipe, ctx_size=ctx_size, threads=threads, system=system, force=force, kv=kv, max_memory=max_memory
    )
    loaded = load_model(here, path, load_options, quiet=quiet or as_json)
    with Interrupt() as interrupt:
        answer = loaded.session.complete if raw else loaded.session.ask
        limits = replace(choose_limits(max_tokens, max_time, loop_guard, on_loop), interrupted=interrupt.requested)
        events = answer(text, sampling, limits)
        answer_text, numbers = stream_answer(events, loaded, show=not as_json, live=not quiet, limits=limits)
    here.used(path, numbers)
    if as_json:
        print_json(
            {
                "model": model,
                "text": answer_text,
                "threads": loaded.n_threads,
                "kv_type": loaded.kv_type,
                "sampling": sampling,
                "stats": numbers,
            }
        )
    elif stats:
        stderr().print(final_lines(numbers))
    if numbers.finish_reason == "interrupted":
        raise typer.Exit(130)
    if structure is not None:
        structure.check(answer_text)
