"""`edgellm bench MODEL...`: how fast models are on this machine, and compared with what."""

from __future__ import annotations

import shlex
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.commands.workspace import workspace
from edgellm.ui import options

if TYPE_CHECKING:
    from edgellm.commands.workspace import Workspace
    from edgellm.measure.bench_contenders import Model
    from edgellm.measure.bench_history import History
    from edgellm.measure.bench_plan import Peer
    from edgellm.measure.bench_result import Setting
    from edgellm.progress import Report

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
        str | None, typer.Option("--kernels", help="Also at these levels: scalar,avx2,avx-vnni,avx512-vnni,amx ...")
    ] = None,
    peer: Annotated[
        Path | None, typer.Option("--peer", help="Another engine's llama-bench, to run in the same rounds.")
    ] = None,
    peer_model: Annotated[
        Path | None, typer.Option("--peer-model", help="The file that it reads. [default: the first model's]")
    ] = None,
    peer_args: Annotated[str, typer.Option("--peer-args", help="More of its options, as in a shell.")] = "",
    prompt: Annotated[int, typer.Option("--n-prompt", "-p", min=0, help="Tokens of a prompt; 0: no such test.")] = 512,
    gen: Annotated[int, typer.Option("--n-gen", "-n", min=0, help="Tokens to generate; 0: no such test.")] = 128,
    batch: Annotated[
        str, typer.Option("--batch", help="Also generate in so many sequences at once: 8, or 2,4,8.")
    ] = "",
    depth: Annotated[int, typer.Option("--depth", "-d", min=0, help="Tokens in the context before each test.")] = 0,
    threads: Annotated[
        str,
        typer.Option(
            "--threads",
            "-t",
            help="Threads: 2, or 1,2,4. [default: physical cores we may use]",
            envvar="EDGELLM_THREADS",
        ),
    ] = "",
    rounds: Annotated[int, typer.Option("--rounds", "-r", min=1, max=1000, help="Rounds; medians are told.")] = 5,
    history: Annotated[bool, typer.Option("--history", help="Only show what was measured earlier.")] = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    offline: options.Offline = False,
) -> None:
    """Measure how fast models read prompts and generate, how much memory they take, and what limits them.

    \b
    Examples: edgellm bench smollm2
              edgellm bench --shape bitnet-2b --against stock --threads 1,2
              edgellm bench a.gguf b.gguf --batch 8
              edgellm bench bitnet.gguf --peer ~/ik_llama.cpp/build/bin/llama-bench --peer-model bitnet-iq2_bn.gguf
    """
    from edgellm.engine.installed import require
    from edgellm.engine.kernels import memory_reader
    from edgellm.files import locked
    from edgellm.measure import bench_contenders, bench_history
    from edgellm.measure.bench_plan import Plan
    from edgellm.measure.benchmark import Watch, benchmark
    from edgellm.ui.bench_tables import show_benchmark, show_history
    from edgellm.ui.console import note, print_json
    from edgellm.ui.interrupt import Interrupt
    from edgellm.ui.progress import progress

    _check(models, shape, quant or head, peer, peer_model or peer_args, prompt or gen)
    plan = Plan(prompt, gen, _sequences(batch), _threads(threads), depth, rounds, force)
    silent = quiet or as_json
    here = workspace(offline=offline)
    if history:
        show_history(_history(here, _on_disk(here, models, shape, quant, head)), as_json=as_json)
        return
    setting = _setting(here)
    with locked(here.settings.cache / "bench.lock", lambda: note("waiting: another benchmark is running")):
        with progress(quiet=silent) as report:
            chosen = [_named(here, name, quiet=silent) for name in models or []]
            if shape:
                chosen.append(_random(here, shape, quant, head, report=report))
            past = _history(here, chosen)
            rivals = bench_contenders.Rivals(
                stock=against == STOCK,
                model=_named(here, against, quiet=silent) if against and against != STOCK else None,
                kernels=tuple(level.strip() for level in kernels.split(",")) if kernels else (),
                peer=_peer(peer, peer_args),
                peer_model=peer_model,
            )
            contenders = bench_contenders.contenders(chosen, rivals, here.settings, report=report)
        with Interrupt() as interrupt, progress(quiet=silent) as report:
            read = memory_reader(require(here.settings, here.stack).libraries)
            result = benchmark(contenders, plan, setting, read, Watch(report, interrupt.requested))
        saved = bench_history.save(here.settings.benchmarks, result)
    if as_json:
        print_json(result)
    else:
        show_benchmark(result, past)
        if not quiet:
            note(f"kept in {saved}; `--history` shows earlier results of a model")
    if not result.complete:
        note(f"stopped early: these are {result.n_rounds} rounds of {rounds}")
        raise typer.Exit(130)


def _check(
    models: list[str] | None, shape: str | None, type_name: str | None, peer: Path | None, of_peer: object, tests: int
) -> None:
    """Refuse options that do not go together."""
    from edgellm.errors import UsageError
    from edgellm.measure.peer import check_peer

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


def _threads(text: str) -> tuple[int, ...]:
    from edgellm.machine.cpu import usable_cores

    return _numbers("--threads", text, MOST_THREADS) if text else (usable_cores(),)


def _sequences(text: str) -> tuple[int, ...]:
    """One sequence alone, and the numbers that are asked for."""
    asked = _numbers("--batch", text, MOST_SEQUENCES) if text else ()
    return tuple(dict.fromkeys([1, *asked]))


def _numbers(option: str, text: str, most: int) -> tuple[int, ...]:
    """ "1,2,4" as numbers, each once."""
    from edgellm.errors import UsageError

    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and len(word) < 9 and 0 < int(word) <= most for word in words):
        raise UsageError(f"{option} {text[:40]!r} is not understood", hint=f"{option} 1,2: numbers from 1 to {most}")
    return tuple(dict.fromkeys(map(int, words)))


def _peer(program: Path | None, arguments: str) -> Peer | None:
    from edgellm.errors import UsageError
    from edgellm.measure.bench_plan import Peer

    if program is None:
        return None
    try:
        return Peer(program, tuple(shlex.split(arguments)))
    except ValueError as error:
        raise UsageError(f"--peer-args {arguments[:60]!r} is not understood", why=str(error)) from error


def _named(here: Workspace, name: str, *, quiet: bool) -> Model:
    """A model by name or path, pulled first if need be."""
    from edgellm.measure.bench_contenders import Model

    path, _ = here.model_file(name, quiet=quiet)
    return Model(path.stem if name.endswith(".gguf") else name, path)


def _random(here: Workspace, name: str, quant: str | None, head: str | None, *, report: Report) -> Model:
    """The random model of a shape, made if need be."""
    from edgellm.engine.installed import require
    from edgellm.engine.quantize import Quantizer
    from edgellm.machine.cpu import usable_cores
    from edgellm.measure.bench_contenders import Model, random_model
    from edgellm.models.shape import find_shape

    shape = find_shape(name, here.recipe_directories)
    codec = Quantizer(require(here.settings, here.stack).libraries, usable_cores())
    return Model(name, random_model(name, shape, quant, head, codec, here.settings, report=report))


def _on_disk(
    here: Workspace, models: list[str] | None, shape: str | None, quant: str | None, head: str | None
) -> list[Model]:
    """The same models, but none is pulled or made; one that is not there was never measured."""
    from edgellm.measure.bench_contenders import Model, random_model_path
    from edgellm.models.recipe import Choice
    from edgellm.models.resolve import resolve
    from edgellm.models.shape import find_shape
    from edgellm.models.store import InstalledModel

    found = [(name, resolve(name, here.store, here.recipe_directories)) for name in models or []]
    paths = [(name, it.path if isinstance(it, InstalledModel) else it) for name, it in found]
    here_now = [Model(name, path) for name, path in paths if not isinstance(path, Choice)]
    if shape:
        sizes = find_shape(shape, here.recipe_directories)
        here_now.append(Model(shape, random_model_path(shape, sizes, quant, head, here.settings)))
    return [model for model in here_now if model.path.exists()]


def _history(here: Workspace, models: list[Model]) -> History:
    from edgellm.measure.bench_history import earlier
    from edgellm.measure.benchmark import fingerprint

    return earlier(here.settings.benchmarks, {fingerprint(model.path) for model in models})


def _setting(here: Workspace) -> Setting:
    from edgellm.engine.installed import require
    from edgellm.machine.cpu import detect
    from edgellm.measure.bench_result import Setting

    record = require(here.settings, here.stack).record
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Setting(date, detect().model, record.version, record.stamp, record.compiler)
