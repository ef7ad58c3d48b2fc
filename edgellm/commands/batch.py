"""`edgellm batch IN.jsonl -o OUT.jsonl -m MODEL`: many prompts at once, resumable."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgellm.answers import answer_cache as open_cache
from edgellm.batch.lines import Shard
from edgellm.batch.merge import merge as merge_parts
from edgellm.batch.tally import Tally
from edgellm.batches import BatchCluster, BatchServer, answer_file
from edgellm.cache.answer_cache import AnswerCache
from edgellm.cache.decision import DEFAULT_ERROR
from edgellm.errors import UsageError
from edgellm.exit_codes import ExitCode
from edgellm.extras import RAY
from edgellm.nodes.address import check_address
from edgellm.progress import Report
from edgellm.ui import options
from edgellm.ui.batch_line import watch_batch
from edgellm.ui.console import note
from edgellm.ui.flags import answer_options, load_options, require_documents
from edgellm.ui.local_engine import building_workspace
from edgellm.ui.model_names import model_names
from edgellm.ui.options import FormFlags, LengthFlags, LoadFlags, QuietOutput, SamplingFlags, ToolFlags
from edgellm.ui.progress import progress
from edgellm.ui.render import render
from edgellm.ui.server_model import AUTO, NEVER, is_url, remote_model, with_tools
from edgellm.ui.tool_consent import batch_tools
from edgellm.units import consumption, duration, rate, size
from edgellm.workspace import Workspace, workspace


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a batch; rows include those of earlier runs, every other number is of this run."""

    output: Path
    tally: Tally


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
        ),
    ] = None,
    slots: Annotated[int, typer.Option("--slots", min=1, max=256, help="Prompts answered at once.")] = 4,
    retry: Annotated[
        int, typer.Option("--retry", min=0, max=100, help="Times to try a row again when another sample may help.")
    ] = 0,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Answer only every N-th row, from row I on.")
    ] = None,
    merge: Annotated[
        Path | None, typer.Option("--merge", metavar="OUT", help="Merge the outputs of all shards into this file.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="[ADDRESS]", help="Answer on the nodes of this Ray cluster, HOST:PORT or auto."),
    ] = None,
    ray_actors: Annotated[
        int, typer.Option("--ray-actors", min=1, max=64, help="Processes that share a node of the cluster.")
    ] = 1,
    answer_cache: options.AnswerCaching = False,
    cache_error: options.AnswerError = DEFAULT_ERROR,
    cache_sampled: options.AnswersSampled = False,
    system: options.System = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue prompts as they are, without the template.")] = False,
    docs: options.Docs = None,
    lora: options.Lora = None,
    server: options.Server = AUTO,
    offline: options.Offline = False,
    *,
    load: LoadFlags,
    length: LengthFlags,
    sampling: SamplingFlags,
    form: FormFlags,
    tool: ToolFlags,
    shown: QuietOutput,
) -> BatchResult:
    """Answer all prompts of a file, several at once. After an interruption the same command resumes.

    Lines are OpenAI batch requests, {"prompt": ...}, or plain text. --ctx-size is the context of each slot. Exit code
    8: some rows failed; they have an error instead of an answer.

    \b
    Examples: edgellm batch questions.jsonl -o answers.jsonl -m smollm2 --slots 8
              edgellm batch questions.jsonl -o answers.jsonl -m smollm2 --docs manuals
              edgellm batch questions.jsonl -o answers.jsonl -m smollm2 --tools calculator,clock
              edgellm batch questions.jsonl -o answers.jsonl -m smollm2 --ray 10.0.0.1:6379
              edgellm batch questions.jsonl -o part2.jsonl -m smollm2 --shard 2/4
              edgellm batch --merge answers.jsonl part1.jsonl part2.jsonl part3.jsonl part4.jsonl
    """
    if merge is not None:
        n_rows, failed = merge_parts(files, merge)
        return _end(shown, BatchResult(merge, Tally(n_rows, 0, done=n_rows, failed=failed)))
    example = "edgellm batch questions.jsonl -o answers.jsonl -m smollm2"
    if len(files) != 1 or output is None or model is None:
        raise UsageError("a batch has one input, an --output and a --model", hint=example)
    if docs is not None and raw:
        raise UsageError("--docs and --raw do not go together", why="passages stand in a message")
    if lora and answer_cache:
        raise UsageError("--lora and --answer-cache do not go together", why="kept answers are the model's own")
    cluster = _cluster(ray, ray_actors, quiet=shown.silent)
    if cluster and (unfit := _not_on_nodes(docs, tool, lora, server)):
        raise UsageError(f"{unfit} and --ray do not go together", hint="--shard spreads such a batch over machines")
    # On a cluster the nodes need an engine, and this machine does not.
    here = workspace(offline=offline) if cluster else building_workspace(offline=offline, quiet=shown.silent)
    chosen = answer_options(sampling, length, form, here)
    require_documents(here, docs, chosen)
    toolsets = batch_tools(here, tool, docs=docs, raw=raw, quiet=shown.silent)
    with progress(quiet=shown.silent) as report, _cache(here, answer_cache, cache_error, report) as cache:
        tallies = answer_file(
            here, model, files[0], output, shard=Shard.parse(shard) if shard else Shard(),
            load=load_options(load, system, slots, lora=lora), options=chosen, raw=raw, retries=retry, docs=docs,
            toolsets=toolsets, cache=cache, cache_sampled=cache_sampled,
            cluster=cluster, report=report,
            server=None if cluster else _server(here, model, with_tools(server, toolsets.names), raw=raw,
                                                quiet=shown.silent),
        )  # fmt: skip
        tally = watch_batch(((tally, "") for tally in tallies), report, quiet=shown.silent)
    return _end(shown, BatchResult(output, tally))


def _cluster(address: str | None, n_actors: int, *, quiet: bool) -> BatchCluster | None:
    """The cluster that answers, as `--ray` says it."""
    if address is None:
        return None
    check_address(address)
    RAY.require(load=False)
    return BatchCluster(address, n_actors, lambda text: None if quiet else note(text))


def _not_on_nodes(docs: str | None, tool: ToolFlags, lora: list[str] | None, server: str) -> str:
    """The first option that the nodes of a cluster cannot honour; empty if there is none."""
    named = {"--docs": docs, "--tools": tool.tools, "--lora": lora, "--server": is_url(server)}
    return next((flag for flag, value in named.items() if value), "")


def _server(here: Workspace, model: str, server: str, *, raw: bool, quiet: bool) -> BatchServer | None:
    """The server that may answer, as `--server` says it."""
    if server == NEVER:
        return None
    must = is_url(server)
    return BatchServer(
        lambda load: remote_model(here, model, server, load, raw=raw and not must, quiet=True),
        must,
        lambda text: None if quiet else note(text),
    )


def _cache(
    here: Workspace, wanted: bool, error: float, report: Report
) -> contextlib.AbstractContextManager[AnswerCache | None]:
    """The answer cache, None if it is not wanted."""
    if not wanted:
        return contextlib.nullcontext()
    return open_cache(here, on_failure=lambda it: note(f"{it.what}: {it.why}; going on without it"), error=error,
                      report=report)  # fmt: skip


def _end(shown: QuietOutput, result: BatchResult) -> BatchResult:
    """The summary, and the exit code."""
    render(shown, result, lambda result: None if shown.quiet else _summarise(result))
    if result.tally.failed:
        raise typer.Exit(ExitCode.ROWS_FAILED)
    return result


def _summarise(result: BatchResult) -> None:
    tally = result.tally
    for line in tally.notes:
        note(line)
    failed = f", {tally.failed:,} of them failed" if tally.failed else ""
    cached = f", {tally.n_cached:,} of them from the answer cache" if tally.n_cached else ""
    note(f"{result.output}: {tally.done:,} rows{failed}{cached}")
    if tally.seconds:
        disk = f", {tally.restored_tokens:,} from disk" if tally.restored_tokens else ""
        reused = f" ({tally.reused_tokens:,} of them reused{disk})" if tally.reused_tokens else ""
        right = f", {tally.accepted_tokens:,} of them by drafts" if tally.accepted_tokens else ""
        note(
            f"{tally.prompt_tokens:,} prompt tokens{reused}, {tally.completion_tokens:,} generated{right} "
            f"in {duration(tally.seconds)}, {rate(tally.rate)} in {tally.n_slots} slot{'s' * (tally.n_slots > 1)}"
        )
        used = consumption(tally.cores_used, tally.energy_joules, tally.completion_tokens)
        note(f"{used}; {size(tally.peak_resident_bytes)} of memory at most")
