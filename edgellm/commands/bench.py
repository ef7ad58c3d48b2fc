"""`edgellm bench MODEL...`: how fast models are on this machine, and compared with what."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from edgellm.engine.kernels import memory_reader
from edgellm.engine.quantize import Quantizer
from edgellm.engine.rpc.address import parse_addresses
from edgellm.errors import UsageError
from edgellm.exit_codes import ExitCode
from edgellm.files import locked
from edgellm.machine.cpu import usable_cores
from edgellm.measure.bench import contenders as bench_contenders
from edgellm.measure.bench import history as bench_history
from edgellm.measure.bench.benchmark import benchmark, fingerprint
from edgellm.measure.bench.contenders import NamedModel, random_model, random_model_path
from edgellm.measure.bench.current import current_setting
from edgellm.measure.bench.history import History, HistoryRecord, earlier
from edgellm.measure.bench.peer import check_peer
from edgellm.measure.bench.plan import BenchPlan, Peer
from edgellm.measure.bench.result import Benchmark
from edgellm.measure.draft_comparison import DraftComparison, compare_drafts
from edgellm.measure.workloads import NAMES, workload
from edgellm.models.fit.shape import find_shape
from edgellm.models.fit.tuned_plan import default_tuning
from edgellm.progress import Observer, Report
from edgellm.report.report_file import ReportFile
from edgellm.report.speed import benchmark_page, history_page
from edgellm.run.loader import LoadOptions
from edgellm.ui import options
from edgellm.ui.bench_tables import show_benchmark, show_drafts, show_history
from edgellm.ui.console import note
from edgellm.ui.flags import open_model
from edgellm.ui.interrupt import Interrupt
from edgellm.ui.local_engine import building_workspace
from edgellm.ui.local_model import find_model
from edgellm.ui.options import QuietOutput
from edgellm.ui.progress import progress
from edgellm.ui.render import render
from edgellm.ui.report import write_report
from edgellm.workspace import Workspace

STOCK = "stock"
MOST_SEQUENCES = 256
MOST_THREADS = 1024


def bench(
    models: Annotated[list[str] | None, typer.Argument(help="Names of models, or paths of GGUF files.")] = None,
    shape: Annotated[
        str | None, typer.Option("--shape", help="A random model of that shape, made here: bitnet-2b, phi3-mini ...")
    ] = None,
    quant: Annotated[str | None, typer.Option("--quant", help="Its weights' type: I2_S, TQ2_0, Q4_0 ...")] = None,
    head: Annotated[str | None, typer.Option("--head", help="Its embedding's and head's type. [default: Q6_K]")] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", "-a", help="Another model, or `stock`: the same on llama.cpp's own kernels."),
    ] = None,
    kernels: Annotated[
        str | None,
        typer.Option(
            "--kernels",
            help="Also at these levels: scalar,avx2,avx-vnni,avx512-vnni,amx ...",
            envvar="EDGELLM_BENCH_KERNELS",
        ),
    ] = None,
    peer: Annotated[
        Path | None, typer.Option("--peer", help="Another engine's llama-bench, run in the same rounds.")
    ] = None,
    peer_model: Annotated[
        Path | None, typer.Option("--peer-model", help="The file that it reads. [default: the first model's]")
    ] = None,
    peer_args: Annotated[str, typer.Option("--peer-args", help="More of its options, as in a shell.")] = "",
    prompt: Annotated[int, typer.Option("--n-prompt", "-p", min=0, help="Tokens of a prompt; 0: no such test.")] = 512,
    gen: Annotated[int, typer.Option("--n-gen", "-n", min=0, help="Tokens to generate; 0: no such test.")] = 128,
    batch: Annotated[
        str, typer.Option("--batch", help="Also generate in several sequences at once: 8, or 2,4,8.")
    ] = "",
    depth: Annotated[int, typer.Option("--depth", "-d", min=0, help="Tokens in the context before each test.")] = 0,
    threads: Annotated[
        str,
        typer.Option(
            "--threads",
            "-t",
            help="Threads: 2, or 1,2,4. [default: as the other verbs]",
        ),
    ] = "",
    workers: options.Workers = None,
    layers_here: options.LayersHere = None,
    tuned: options.Tuned = True,
    workloads: Annotated[
        list[str] | None,
        typer.Option("--workload", help=f"Compare drafts with none: {', '.join(NAMES)} or all; can be repeated."),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", "-r", min=1, max=1000, help="Rounds; the medians are shown.")] = 5,
    report: options.ReportPath = None,
    history: Annotated[bool, typer.Option("--history", help="Only show what was measured earlier.")] = False,
    force: options.Force = False,
    offline: options.Offline = False,
    *,
    output: QuietOutput,
) -> Benchmark | tuple[HistoryRecord, ...] | DraftComparison:
    """Measure how fast models read prompts and generate, how much memory they take, and what limits them.

    --workload answers ten prompts of a kind, each with drafts and without, -n tokens at most.

    \b
    Examples: edgellm bench smollm2
              edgellm bench --shape bitnet-2b --against stock --threads 1,2
              edgellm bench smollm2 --workload quote --workload chat
              edgellm bench smollm2 --workers 10.0.0.2,10.0.0.3 --against smollm2
              edgellm bench a.gguf b.gguf --batch 8 --report speed.html
              edgellm bench bitnet.gguf --peer ~/ik_llama.cpp/build/bin/llama-bench --peer-model bitnet-iq2_bn.gguf
    """
    if workloads:
        if shape or not models or len(models) > 1 or not gen:
            hint = "edgellm bench smollm2 --workload all"
            raise UsageError("--workload takes one model, and at least one token", hint=hint)
        counts = _numbers("--threads", threads, MOST_THREADS) if threads else (None,)
        return _compare_drafts(models[0], workloads, gen, counts[0], tuned, output)
    if layers_here is not None and workers is None:
        raise UsageError("--layers-here is for a model on workers", hint="--workers HOST:PORT")
    if workers is not None and (not models or len(models) > 1 or against == STOCK or kernels):
        why = "a worker computes for one contender, on its own kernels"
        raise UsageError("--workers takes one model", why=why, hint="edgellm bench MODEL --workers HOST:PORT")
    _check(models, shape, quant or head, peer, peer_model or peer_args, prompt or gen)
    counts = _numbers("--threads", threads, MOST_THREADS) if threads else ()
    plan = BenchPlan(prompt, gen, _sequences(batch), counts, depth, rounds, force)
    silent = output.silent
    report_file = ReportFile.at(report) if report else None
    here = building_workspace(offline=offline, quiet=output.silent)
    if history:
        earlier_results = _history(here, _on_disk(here, models, shape, quant, head))
        render(output, earlier_results.records, lambda _: show_history(earlier_results))
        if report_file:
            write_report(report_file, history_page(earlier_results), quiet=silent)
        return earlier_results.records
    setting = current_setting(here.installed_engine)
    with locked(here.settings.cache / "bench.lock", cache(lambda: note("waiting: another benchmark is running"))):
        with progress(quiet=silent) as advance:
            chosen = [_named(here, name, tuned=tuned, quiet=silent) for name in models or []]
            if workers is not None:
                chosen = [replace(each, workers=parse_addresses(workers), n_here=layers_here) for each in chosen]
            if shape:
                chosen.append(_random(here, shape, quant, head, report=advance))
            past = _history(here, chosen)
            rivals = bench_contenders.Rivals(
                stock=against == STOCK,
                model=_named(here, against, tuned=tuned, quiet=silent) if against and against != STOCK else None,
                kernels=tuple(level.strip() for level in kernels.split(",")) if kernels else (),
                peer=_peer(peer, peer_args),
                peer_model=peer_model,
            )
            contenders = bench_contenders.contenders(chosen, rivals, here.settings, report=advance)
            plan = replace(plan, n_threads=counts or _used_threads(chosen))
        with Interrupt() as interrupt, progress(quiet=silent) as advance:
            read = memory_reader(here.installed_engine.libraries)
            result = benchmark(contenders, plan, setting, read, Observer(advance, interrupt.requested))
        saved = bench_history.save(here.settings.benchmarks, result)
    render(output, result, lambda result: show_benchmark(result, past))
    if report_file:
        write_report(report_file, benchmark_page(result, past), quiet=silent)
    if not silent:
        note(f"kept in {saved}; `--history` shows earlier results of a model")
    if not result.complete:
        note(f"stopped early: these are {result.n_rounds} rounds of {rounds}")
        raise typer.Exit(ExitCode.INTERRUPTED)
    return result


def _compare_drafts(
    model: str, asked: list[str], max_tokens: int, n_threads: int | None, tuned: bool, output: QuietOutput
) -> DraftComparison:
    """Answer the prompts of workloads with drafts and without."""
    names = list(NAMES) if "all" in asked else list(dict.fromkeys(asked))
    for name in names:
        workload(name)
    here, silent = building_workspace(offline=False, quiet=output.silent), output.silent
    here.require_chat(model)
    with locked(here.settings.cache / "bench.lock", cache(lambda: note("waiting: another benchmark is running"))):
        loading = LoadOptions(n_threads=n_threads, use_tuning=tuned)
        with open_model(here, model, loading, quiet=silent) as opened, Interrupt() as interrupt:
            if opened.speculation is None or not opened.context.can_truncate:
                raise UsageError(f"{model} does not draft", why="its cache cannot be truncated")
            with progress(quiet=silent) as advance:
                watch = Observer(advance, interrupt.requested)
                result = compare_drafts(opened, opened.speculation, names, max_tokens=max_tokens, watch=watch)
    render(output, result, show_drafts)
    if not result.complete:
        raise typer.Exit(ExitCode.INTERRUPTED)
    return result


def _check(
    models: list[str] | None, shape: str | None, type_name: str | None, peer: Path | None, of_peer: object, tests: int
) -> None:
    """Refuse options that do not go together."""
    if not models and not shape:
        raise UsageError("there is nothing to measure", hint="edgellm bench smollm2, or --shape bitnet-2b")
    if not tests:
        raise UsageError("there is nothing to measure", why="neither a prompt nor anything to generate", hint="-n 128")
    if type_name and not shape:
        raise UsageError("--quant and --head are of a random model", hint="--shape bitnet-2b, or edgellm quantize")
    if peer is None and of_peer:
        raise UsageError("there is no peer that this is for", hint="--peer PATH/TO/llama-bench")
    if peer is not None:
        check_peer(peer)


def _used_threads(models: list[NamedModel]) -> tuple[int, ...]:
    """The numbers of threads that the other verbs use for these models."""
    used = [each.tuning or default_tuning() for each in models]
    return tuple(sorted({count for each in used for count in (each.n_threads, each.n_threads_batch)}))


def _sequences(text: str) -> tuple[int, ...]:
    """One sequence alone, and the numbers that are asked for."""
    asked = _numbers("--batch", text, MOST_SEQUENCES) if text else ()
    return tuple(dict.fromkeys([1, *asked]))


def _numbers(option: str, text: str, most: int) -> tuple[int, ...]:
    """ "1,2,4" as numbers, each once."""

    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and len(word) < 9 and 0 < int(word) <= most for word in words):
        raise UsageError(f"{option} {text[:40]!r} is not understood", hint=f"{option} 1,2: numbers from 1 to {most}")
    return tuple(dict.fromkeys(map(int, words)))


def _peer(program: Path | None, arguments: str) -> Peer | None:
    if program is None:
        return None
    try:
        return Peer(program, tuple(shlex.split(arguments)))
    except ValueError as error:
        raise UsageError(f"--peer-args {arguments[:60]!r} is not understood", why=str(error)) from error


def _named(here: Workspace, name: str, *, tuned: bool, quiet: bool) -> NamedModel:
    """A model by name or path, pulled first if need be, and how the other verbs run it."""
    path = find_model(here, name, quiet=quiet).path
    tuning = here.tuning(path) if tuned else None
    return NamedModel(path.stem if name.endswith(".gguf") else name, path, tuning or default_tuning())


def _random(here: Workspace, name: str, quant: str | None, head: str | None, *, report: Report) -> NamedModel:
    """The random model of a shape, made if need be."""
    shape = find_shape(name, here.recipe_directories)
    codec = Quantizer(here.installed_engine.libraries, usable_cores())
    return NamedModel(name, random_model(name, shape, quant, head, codec, here.settings, report=report))


def _on_disk(
    here: Workspace, models: list[str] | None, shape: str | None, quant: str | None, head: str | None
) -> list[NamedModel]:
    """The same models, but none is pulled or made; one that is not there was never measured."""
    found = [(name, here.local(name)) for name in models or []]
    here_now = [NamedModel(name, local.path) for name, local in found if local]
    if shape:
        sizes = find_shape(shape, here.recipe_directories)
        here_now.append(NamedModel(shape, random_model_path(shape, sizes, quant, head, here.settings)))
    return [model for model in here_now if model.path.exists()]


def _history(here: Workspace, models: list[NamedModel]) -> History:
    return earlier(here.settings.benchmarks, {fingerprint(model.path) for model in models})
