"""`edgellm fit MODEL`: will it fit into memory, and what would."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.commands.completion import model_names
from edgellm.commands.workspace import Workspace, workspace
from edgellm.ui import options

if TYPE_CHECKING:
    from edgellm.models.fit import Fit
    from edgellm.models.outline import Outline

EXIT_DOES_NOT_FIT = 5


def fit(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's name, a repository on the Hub, a GGUF file, or a checkpoint's directory.",
            autocompletion=model_names,
        ),
    ],
    ctx_size: Annotated[
        int | None, typer.Option("--ctx-size", "-c", min=8, help="Context in tokens, for each slot. [default: 4096]")
    ] = None,
    slots: Annotated[int, typer.Option("--slots", min=1, max=1024, help="Requests answered at once.")] = 1,
    kv: options.KVType = None,
    ram: Annotated[
        str | None, typer.Option("--ram", metavar="SIZE", help="Compare with this instead of what is free: 4GB.")
    ] = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    offline: options.Offline = False,
) -> None:
    """Tell whether a model fits into memory, from its header alone, and what would fit instead.

    Exit code 5 when it does not fit.

    \b
    Examples: edgellm fit smollm2
              edgellm fit phi-3-mini-128k -c 131072
              edgellm fit qwen2.5-7b --slots 4 --kv q8_0 --ram 8GB
    """
    from edgellm.machine import memory
    from edgellm.machine.cpu import usable_cores
    from edgellm.machine.memory import Room
    from edgellm.models.elsewhere import offers
    from edgellm.models.fit import judge
    from edgellm.models.memory import RunPlan, choose_context
    from edgellm.models.outline import cache_type
    from edgellm.models.recipe import load_recipes
    from edgellm.ui.console import print_json
    from edgellm.ui.units import parse_size

    here = workspace(offline=offline)
    room = Room(parse_size(ram, "--ram")) if ram else memory.room()
    kind = cache_type(kv or "F16").name
    outline = _outline(here, model, quiet=quiet or as_json)
    n_ctx = choose_context(outline.n_ctx_train, ctx_size)
    plan = RunPlan(n_ctx, slots, kind, n_threads=threads or usable_cores())
    others = offers(load_recipes(here.recipe_directories).values(), instead_of=model)
    answer = judge(outline, plan, room, others)
    if as_json:
        print_json(answer)
    else:
        _print(answer)
    if not answer.fits:
        raise typer.Exit(EXIT_DOES_NOT_FIT)


def _outline(here: Workspace, model: str, *, quiet: bool) -> Outline:
    from edgellm.errors import ModelNotFound, NetworkError
    from edgellm.models.elsewhere import outline_of_plan, outline_of_recipe
    from edgellm.models.fit import read_outline
    from edgellm.models.planned import read_checkpoint_outline
    from edgellm.models.pull import make_plan
    from edgellm.models.resolve import resolve
    from edgellm.models.store import InstalledModel
    from edgellm.ui.progress import progress

    if (Path(model) / "config.json").is_file():
        return read_checkpoint_outline(Path(model))
    found = resolve(model, here.store, here.recipe_directories)
    if isinstance(found, Path):
        return read_outline(found, model)
    if isinstance(found, InstalledModel):
        return read_outline(found.path, found.name)
    with progress(quiet=quiet) as report:
        try:
            outline = outline_of_plan(make_plan(found, here.hub, report=report), here.hub, report=report)
        except NetworkError:
            outline = outline_of_recipe(found)
            if outline is None:
                raise
    if outline is None:
        what = f"nothing is known of the memory that {model} needs before it is here"
        raise ModelNotFound(what, why="its recipe tells no shape", hint=f"edgellm pull {model}")
    return outline


def _print(answer: Fit) -> None:
    from edgellm.models.memory import RunPlan, describe
    from edgellm.ui.console import print_fields, print_line
    from edgellm.ui.units import count, size

    need = answer.need
    plan = describe(RunPlan(answer.n_ctx, answer.n_slots, answer.kv_type))
    copied = f"{size(need.mapped)} mapped from the file, {size(need.copied)} copied for the kernels"
    cache = f"{need.kv_cache / 2**30:.2f} GiB: {answer.kv_bytes_per_token:,} bytes a token"
    verdict = "fits" if answer.fits else "does not fit"
    longest = f"; up to {answer.largest_context:,} tokens would" if answer.fits else ""
    print_fields(
        [
            ("model", f"{answer.model}  {count(answer.n_params)} {answer.quant}  {size(answer.n_bytes)}"),
            ("plan", f"{plan}; the model was trained with {answer.n_ctx_train:,}"),
            ("weights", f"{size(need.weights):<10}{copied if need.copied else 'mapped from the file'}"),
            ("KV cache", f"{size(need.kv_cache):<10}{cache}"),
            ("compute", f"{size(need.compute):<10}activations and the attention mask"),
            ("slack", f"{size(need.slack):<10}Python, the engine, the vocabulary"),
            ("needs", f"{size(need.total):<10}{size(answer.available)} available: {verdict}{longest}"),
        ]
    )
    if answer.fits:
        return
    print_line("what fits instead:" if answer.alternatives else "nothing known here fits instead")
    for each in answer.alternatives:
        model, options_ = shlex.quote(each.model or answer.model), each.options
        print_line(f"  {each.what:<44} {size(each.total):>8}   edgellm fit {model} {options_}")
