"""`edgellm fit MODEL`: will it fit into memory, and what would."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.errors import EngineMissing, ModelNotFound, UsageError
from edgellm.exit_codes import ExitCode
from edgellm.machine import cgroup, memory
from edgellm.machine.cpu import usable_cores
from edgellm.machine.memory import Room
from edgellm.models.fit.memory import RunPlan, describe
from edgellm.models.fit.named_outline import outline_of_name
from edgellm.models.fit.remote_outline import offers
from edgellm.models.fit.tuned_plan import Tuning, tuned_plan
from edgellm.models.fit.verdict import Fit, default_plan, judge
from edgellm.models.hub.retry import Patience
from edgellm.models.local.store import InstalledModel
from edgellm.models.recipe import load_recipes
from edgellm.models.resolve import resolve
from edgellm.ui import options
from edgellm.ui.console import note, print_fields, print_line, print_table
from edgellm.ui.model_names import model_names
from edgellm.ui.options import QuietOutput
from edgellm.ui.progress import progress
from edgellm.ui.render import render
from edgellm.units import count, parse_size, size
from edgellm.workspace import Workspace, workspace

if TYPE_CHECKING:
    from edgellm.models.hub.client import Hub

# Less than this is padding, not a part of the weights.
SHOWN_BYTES = 1_000_000


def fit(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's name, a repository on the Hub, a GGUF file, or a checkpoint's directory.",
            autocompletion=model_names,
        ),
    ],
    ctx_size: Annotated[
        int | None,
        typer.Option(
            "--ctx-size", "-c", "--num-ctx", min=8, help="Context in tokens, for each slot. [default: as for `run`]"
        ),
    ] = None,
    slots: Annotated[int, typer.Option("--slots", min=1, max=1024, help="Requests answered at once.")] = 1,
    kv: options.KVType = None,
    ram: Annotated[
        str | None,
        typer.Option("--ram", metavar="SIZE", help="Compare with this instead of the free memory: 4GB."),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option("--max-memory", metavar="SIZE", help="Compare with at most this: 1.5GB."),
    ] = None,
    workers: options.Workers = None,
    layers_here: options.LayersHere = None,
    threads: options.Threads = None,
    tuned: options.Tuned = True,
    offline: options.Offline = False,
    *,
    output: QuietOutput,
) -> Fit:
    """Show whether a model fits into memory, from its header alone, and what would fit instead.

    Exit code 5 when it does not fit.

    \b
    Examples: edgellm fit smollm2
              edgellm fit phi-3-mini-128k -c 131072
              edgellm fit qwen2.5-7b --slots 4 --kv q8_0 --ram 8GB
              edgellm fit qwen2.5-7b --workers 10.0.0.2,10.0.0.3
    """
    if layers_here is not None and workers is None:
        raise UsageError("--layers-here is for a model on workers", hint="--workers HOST:PORT")
    here = workspace(offline=offline)
    room = Room(parse_size(ram, "--ram")) if ram else memory.room()
    cap = parse_size(max_memory, "--max-memory") if max_memory else room.available
    room = replace(room, available=min(room.available, cap))
    with progress(quiet=output.silent) as report:
        outline = outline_of_name(model, here.store, here.recipe_directories, lambda: _patient(here.hub), report=report)
    if workers is not None:
        spread = here.judge_on_workers(
            outline, room, workers, n_ctx=ctx_size, kv_type=kv, n_threads=threads or usable_cores(), n_slots=slots,
            n_here=layers_here,
        )  # fmt: skip
        return render(output, spread, _print_machines)
    found = _tuning(here, model) if tuned else None
    tuning = found.with_threads(threads) if found else None
    plan = default_plan(outline, room, n_ctx=ctx_size, kv_type=kv, n_threads=threads or usable_cores(), n_slots=slots)
    plan = tuned_plan(plan, tuning, outline, room)
    others = offers(load_recipes(here.recipe_directories).values(), instead_of=outline.name)
    limit = "as --ram says" if ram else "as --max-memory says" if room.available == cap and max_memory else _limit()
    path = _path(model, here)
    packed, prompts = (files.nbytes_of(path) if path else 0 for files in (here.packed, here.all_prompts))
    verdict = replace(judge(outline, plan, room, others), tuning=tuning, packed=packed, prompts=prompts)
    answer = render(output, verdict, lambda answer: _print(answer, limit))
    if not answer.fits:
        raise typer.Exit(ExitCode.DOES_NOT_FIT)
    return answer


def _tuning(here: Workspace, name: str) -> Tuning | None:
    """What `tune` found for a model that is here; None without an engine too."""
    try:
        local = here.local(name)
        return here.tuning(local.path) if local else None
    except (ModelNotFound, EngineMissing):  # a checkpoint's directory has no name here
        return None


def _path(model: str, here: Workspace) -> Path | None:
    """The file of a model that is here."""
    found = None if Path(model).is_dir() else resolve(model, here.store, here.recipe_directories)
    path = found.path if isinstance(found, InstalledModel) else found
    return path if isinstance(path, Path) else None


def _patient(hub: Hub) -> Hub:
    """The Hub, asked less often than for a download: somebody waits for the verdict."""
    return replace(hub, patience=Patience(pauses=(1,)))


def _limit() -> str:
    """What bounds the memory here, if it is not the machine itself."""
    limit = cgroup.memory_limit()
    return "available" if limit is None else f"available, of the {size(limit)} that the control group allows"


def _print_machines(answer: Fit) -> None:
    """Print what each machine would hold."""
    plan = describe(RunPlan(answer.n_ctx, answer.n_slots, answer.kv_type))
    print_fields(
        [
            ("model", f"{answer.model}  {count(answer.n_params)} {answer.quant}  {size(answer.n_bytes)}"),
            ("plan", f"{plan}; the model was trained with {answer.n_ctx_train:,}"),
        ]
    )
    rows = [
        (each.machine, str(each.n_layers), size(each.kv_cache), size(each.total), size(each.available))
        for each in answer.machines
    ]
    print_table(("MACHINE", "LAYERS", "KV CACHE", "NEEDS", "AVAILABLE"), rows, right=(1, 2, 3, 4))
    note("embedding and head are here; a worker keeps the cache of its layers")


def _print(answer: Fit, limit: str) -> None:
    need = answer.need
    plan = describe(RunPlan(answer.n_ctx, answer.n_slots, answer.kv_type))
    where = [f"{size(need.mapped)} mapped from the file"]
    if answer.packed:
        where.append(f"{size(answer.packed)} from its packed file, which processes share")
    if need.copied - answer.packed >= SHOWN_BYTES:
        where.append(f"{size(need.copied - answer.packed)} copied for the kernels")
    cache = f"{need.kv_cache / 2**30:.2f} GiB: {answer.kv_bytes_per_token:,} bytes a token"
    verdict = "fits" if answer.fits else "does not fit"
    longest = f"; up to {answer.largest_context:,} tokens would" if answer.fits else ""
    print_fields(
        [
            ("model", f"{answer.model}  {count(answer.n_params)} {answer.quant}  {size(answer.n_bytes)}"),
            ("plan", f"{plan}; the model was trained with {answer.n_ctx_train:,}"),
            ("weights", f"{size(need.weights):<10}{', '.join(where) if where[1:] else 'mapped from the file'}"),
            ("KV cache", f"{size(need.kv_cache):<10}{cache}"),
            ("compute", f"{size(need.compute):<10}activations and the attention mask"),
            ("slack", f"{size(need.slack):<10}Python, the engine, the vocabulary"),
            *([("runs with", f"{answer.tuning}, as edgellm tune found")] if answer.tuning else []),
            *(
                [("on disk", f"{size(answer.prompts):<10}prompts that need not be read again")]
                if answer.prompts
                else []
            ),
            ("needs", f"{size(need.total):<10}{size(answer.available)} {limit}: {verdict}{longest}"),
        ]
    )
    if answer.fits:
        return
    if answer.address_space is not None and need.address_space > answer.address_space:
        note(f"it needs {size(need.address_space)} of address space; ulimit -v leaves {size(answer.address_space)}")
    if not answer.alternatives:
        print_line("nothing known here fits instead")
        return
    rows = [
        (f"edgellm fit {shlex.quote(each.model or answer.model)} {each.options}", size(each.total), each.what)
        for each in answer.alternatives
    ]
    print_table(("WHAT FITS INSTEAD", "NEEDS", "WITH"), rows, right=(1,), spare=("WITH",))
