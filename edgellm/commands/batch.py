"""`edgellm batch IN.jsonl -o OUT.jsonl -m MODEL`: many prompts at once, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.commands.completion import model_names
from edgellm.commands.workspace import workspace
from edgellm.ui import options

if TYPE_CHECKING:
    from edgellm.progress import Report
    from edgellm.run.batch import Batch, Tally

EXIT_ROWS_FAILED = 8
REFRESH_SECONDS = 0.1


def batch(
    files: Annotated[list[Path], typer.Argument(help="The input; with --merge, the outputs of all shards.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the answers go.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A model's name, or the path of a GGUF file.",
            autocompletion=model_names,
            envvar="EDGELLM_MODEL",
        ),
    ] = None,
    slots: Annotated[
        int, typer.Option("--slots", min=1, max=256, help="Prompts answered at once.", envvar="EDGELLM_SLOTS")
    ] = 4,
    retry: Annotated[
        int, typer.Option("--retry", min=0, max=100, help="Try again so often where another draw may help.")
    ] = 0,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Answer only every N-th row, from row I on.")
    ] = None,
    merge: Annotated[
        Path | None, typer.Option("--merge", metavar="OUT", help="Put the outputs of all shards together.")
    ] = None,
    system: options.System = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue prompts as they are, without the template.")] = False,
    ctx_size: options.ContextSize = None,
    kv: options.KVType = None,
    max_memory: options.MaxMemory = None,
    max_tokens: options.MaxTokens = -1,
    loop_guard: options.Guard = True,
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
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    offline: options.Offline = False,
) -> None:
    """Answer all prompts of a file, several at once; killed at any moment, the same command goes on.

    Lines are OpenAI batch requests, {"prompt": ...}, or plain text. The context holds for each slot. Exit code 8: rows
    failed, and have an error in the place of their answer.

    \b
    Examples: edgellm batch questions.jsonl -o answers.jsonl -m smollm2 --slots 8
              edgellm batch questions.jsonl -o part2.jsonl -m smollm2 --shard 2/4
              edgellm batch --merge answers.jsonl part1.jsonl part2.jsonl part3.jsonl part4.jsonl
    """
    from edgellm.errors import UsageError

    if merge is not None:
        _merge(files, merge, as_json=as_json, quiet=quiet)
        return
    example = "edgellm batch questions.jsonl -o answers.jsonl -m smollm2"
    if len(files) != 1 or output is None or model is None:
        raise UsageError("a batch has one input, an --output and a --model", hint=example)
    from dataclasses import asdict, replace

    from edgellm.commands.answering import choose_loading, choose_sampling, choose_structure
    from edgellm.run.batch import Batch, BatchOptions, Tally
    from edgellm.run.batch_journal import Journal, already_answered
    from edgellm.run.batch_lines import Shard, ids, survey
    from edgellm.run.loading import load_weights
    from edgellm.run.memory_guard import MemoryGuard
    from edgellm.ui.progress import progress

    source, part = files[0], Shard.parse(shard) if shard else Shard()
    here = workspace(offline=offline)
    with progress(quiet=quiet or as_json) as report:
        found = survey(source, report)
        answered = already_answered(output, ids(source, part))
    n_rows = part.rows_of(found.n_rows)
    if answered is not None:
        _end(Tally(n_rows, slots, resumed=n_rows, done=n_rows, failed=answered), output, as_json=as_json, quiet=quiet)
        return
    structure = choose_structure(here, form, grammar)
    path, recipe = here.model_file(model, quiet=quiet or as_json)
    sampling = choose_sampling(
        recipe, seed, temperature=temp, top_k=top_k, top_p=top_p, min_p=min_p, repeat_penalty=repeat_penalty
    )
    load_options = choose_loading(
        recipe, ctx_size=ctx_size, threads=threads, system=system, force=force, kv=kv, max_memory=max_memory
    )
    begun_with = {
        "model": path.name, "bytes": path.stat().st_size, "shard": f"{part.index}/{part.count}", "seed": seed,
        "ctx-size": ctx_size, "system": load_options.system or "", "raw": raw, "max-tokens": max_tokens,
        "format": form or "", "grammar": structure.grammar if structure else "",
        **{name: value for name, value in asdict(sampling).items() if name != "seed" and "grammar" not in name},
    }  # fmt: skip
    with Journal(output) as journal:
        holding = journal.agree(begun_with, {"seed": sampling.seed})
        journal.resume(ids(source, part))
        asked = replace(load_options, n_ctx=holding["ctx-size"])
        with progress(quiet=quiet or as_json) as report:
            loaded, plan = load_weights(here.engine(), path, asked, n_slots=slots, report=report)
        name = path.stem if model.endswith(".gguf") else model
        batch_options = BatchOptions(
            name=name,
            names={name, model, path.name},
            sampling=replace(sampling, seed=holding["seed"]),
            bindings=here.bindings,
            max_tokens=max_tokens,
            system=asked.system,
            chat_template=asked.chat_template or "",
            raw=raw,
            retries=retry,
            loop_guard=loop_guard,
            structure=structure,
        )
        job = Batch(source, found, part, journal, loaded, plan, batch_options, guard=MemoryGuard(asked.max_memory))
        with progress(quiet=quiet or as_json) as report:
            _watch(job, report, quiet=quiet or as_json)
        journal.finish()
    _end(job.tally, output, as_json=as_json, quiet=quiet)


def _watch(job: Batch, report: Report, *, quiet: bool) -> None:
    """Run a batch with a line of live numbers."""
    import time

    from edgellm.machine import memory
    from edgellm.progress import Progress
    from edgellm.ui.console import note
    from edgellm.ui.units import clock, rate, size

    shown = 0.0
    tally = job.tally
    try:
        for tally in job.run():
            if tally.resumed and not shown and not quiet:
                left = tally.n_rows - tally.resumed
                note(f"resuming: {tally.resumed:,} of {tally.n_rows:,} done, {left:,} to go")
            if (now := time.monotonic()) - shown < REFRESH_SECONDS:
                continue
            shown = now
            parts = [rate(tally.rate), f"{tally.busy}/{tally.n_slots} slots", size(memory.resident())]
            if tally.seconds_left is not None:
                parts.append(f"{clock(tally.seconds_left)} left")
            if tally.failed:
                parts.append(f"errors {tally.failed:,}")
            report(Progress("answering", tally.done, tally.n_rows, "rows", "  ".join(parts)))
    except (KeyboardInterrupt, SystemExit):
        note(f"stopped: {tally.done:,} of {tally.n_rows:,} rows are done; the same command goes on from there")
        raise


def _end(tally: Tally, output: Path, *, as_json: bool, quiet: bool) -> None:
    """The summary, and the exit code."""
    from edgellm.ui.console import note, print_json
    from edgellm.ui.units import consumption, duration, rate, size

    if as_json:
        print_json({"output": output, "tally": tally})
    elif not quiet:
        failed = f", {tally.failed:,} of them failed" if tally.failed else ""
        note(f"{output}: {tally.done:,} rows{failed}")
        if tally.seconds:
            reused = f" ({tally.reused_tokens:,} of them reused)" if tally.reused_tokens else ""
            note(
                f"{tally.prompt_tokens:,} prompt tokens{reused}, {tally.completion_tokens:,} generated "
                f"in {duration(tally.seconds)}, {rate(tally.rate)} in {tally.n_slots} slot{'s' * (tally.n_slots > 1)}"
            )
            used = consumption(tally.cores_used, tally.energy_joules, tally.completion_tokens)
            note(f"{used}; {size(tally.peak_resident_bytes)} of memory at most")
    if tally.failed:
        raise typer.Exit(EXIT_ROWS_FAILED)


def _merge(parts: list[Path], output: Path, *, as_json: bool, quiet: bool) -> None:
    from edgellm.run.batch import Tally
    from edgellm.run.batch_merge import merge

    n_rows, failed = merge(parts, output)
    _end(Tally(n_rows, 0, done=n_rows, failed=failed), output, as_json=as_json, quiet=quiet)
