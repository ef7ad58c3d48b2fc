"""`edgellm convert SRC`: a checkpoint directory, as it lies on the Hub, into one GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.commands.workspace import Workspace, workspace
from edgellm.ui import options

if TYPE_CHECKING:
    from edgellm.engine.quantize import Quantizer
    from edgellm.progress import Report
    from edgellm.weights.conversion import Conversion


def convert(
    source: Annotated[
        str,
        typer.Argument(help="A directory with config.json, safetensors and tokenizer files, or user/repo on the Hub."),
    ],
    outtype: Annotated[
        str | None, typer.Option("--outtype", help="Type of the weight matrices. Default: the one that fits best.")
    ] = None,
    head: Annotated[
        str | None, typer.Option("--head", help="Type of embedding and output head: f16, q8_0, q6_k ... Default: f16.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file. Default: NAME-TYPE.gguf.")] = None,
    pre: Annotated[
        str | None, typer.Option("--pre", help="llama.cpp's name of the pre-tokenizer, if it is not recognised.")
    ] = None,
    upstream: Annotated[
        bool, typer.Option("--upstream", help="Use llama.cpp's converter, for other architectures; needs torch.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    offline: options.Offline = False,
) -> None:
    """Convert BitNet, ternary and plain Llama, Bonsai, Phi-3, Qwen (GPTQ too) and BERT checkpoints without loss.

    \b
    Examples: edgellm convert ./bitnet-b1.58-2B-4T --head q6_k -o bitnet-2b.gguf
              edgellm convert deepgrove/Bonsai
    """
    from edgellm.ui.console import print_json
    from edgellm.ui.progress import progress
    from edgellm.weights import converter
    from edgellm.weights.upstream import convert_with_upstream

    here = workspace(offline=offline)
    with progress(quiet=quiet or as_json) as report:
        directory = _checkpoint(here, source, report)
        if upstream:
            result = convert_with_upstream(_llama_cpp(here), directory, output, outtype=outtype, report=report)
        else:
            quantize = _quantizer(here) if converter.needs_engine(head) else None
            result = converter.convert(
                directory, output, outtype=outtype, head=head, pre=pre, quantize=quantize, report=report
            )
    if as_json:
        print_json(result)
    else:
        _show(result, quiet=quiet)


def _checkpoint(here: Workspace, source: str, report: Report) -> Path:
    """The directory, or the checkpoint of a repository on the Hub, fetched into its cache."""
    from dataclasses import replace

    from edgellm.models.pull import make_plan
    from edgellm.models.recipe import Conversion
    from edgellm.models.reference import parse_reference
    from edgellm.weights.pulling import checkpoint_directory

    directory = Path(source)
    reference = None if directory.exists() or source.startswith((".", "/", "~")) else parse_reference(source)
    if reference is None:
        return directory
    plan = make_plan(replace(reference, convert=Conversion()), here.hub, report=report)
    return checkpoint_directory(plan, here.hub, report=report)


def _quantizer(here: Workspace) -> Quantizer:
    from edgellm.engine.installed import require
    from edgellm.engine.quantize import Quantizer
    from edgellm.machine.cpu import usable_cores

    return Quantizer(require(here.settings, here.stack).libraries, usable_cores())


def _llama_cpp(here: Workspace) -> Path:
    """The tree the engine was built from, unpacked again if the cache was emptied since."""
    from edgellm.engine.installed import require
    from edgellm.engine.source import prepare
    from edgellm.package_index import fetch

    work = here.settings.builds / require(here.settings, here.stack).directory.name
    archive = fetch(here.stack.upstream.archive, here.settings.downloads)
    return prepare(here.stack, archive, work).llama_cpp


def _show(result: Conversion, *, quiet: bool) -> None:
    from edgellm.ui.console import note, print_fields, print_table
    from edgellm.ui.units import count, duration, size

    print_fields(
        [
            ("model", f"{result.name}, {result.architecture}, {count(result.n_params)} parameters"),
            ("file", f"{result.path}  {size(result.n_bytes)} in {duration(result.seconds)}"),
        ]
    )
    rows = [
        (kind.type, str(kind.n_tensors), count(kind.n_params), size(kind.n_bytes), f"{kind.bpw:.2f}")
        for kind in result.types
    ]
    print_table(("TYPE", "TENSORS", "WEIGHTS", "SIZE", "BITS/WEIGHT"), rows, right=(1, 2, 3, 4))
    if not quiet:
        for text in result.notes:
            note(f"note: {text}")
        note(
            f"next: edgellm chat {result.path}"
            if result.architecture != "bert"
            else f"next: edgellm show {result.path}"
        )
