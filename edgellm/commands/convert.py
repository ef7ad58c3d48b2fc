"""`edgellm convert SRC`: a checkpoint directory, as it lies on the Hub, into one GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.builds.source import prepare
from edgellm.engine.quantize import Quantizer
from edgellm.machine.cpu import usable_cores
from edgellm.models.local.description import first_use, kind_of_file
from edgellm.package_index import fetch
from edgellm.ui import options
from edgellm.ui.console import note, print_fields, print_table
from edgellm.ui.local_checkpoint import find_checkpoint
from edgellm.ui.local_engine import building_workspace
from edgellm.ui.options import QuietOutput
from edgellm.ui.progress import progress
from edgellm.ui.render import render
from edgellm.units import count, duration, size
from edgellm.weights.convert import converter
from edgellm.weights.convert.conversion import Conversion
from edgellm.weights.convert.upstream import convert_with_upstream
from edgellm.workspace import Workspace


def convert(
    source: Annotated[
        str,
        typer.Argument(help="A directory with config.json, safetensors and tokenizer files, or user/repo on the Hub."),
    ],
    outtype: Annotated[
        str | None, typer.Option("--outtype", help="Type of the weight matrices. [default: the one that fits best]")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            "--head",
            help="Type of embedding and output head: f16, q8_0, q6_k ... [default: f16, or as --outtype if exact]",
        ),
    ] = None,
    file: Annotated[Path | None, typer.Option("--output", "-o", help="The file. [default: NAME-TYPE.gguf]")] = None,
    pre: Annotated[
        str | None, typer.Option("--pre", help="llama.cpp's name for the pre-tokenizer, if it is not recognised.")
    ] = None,
    upstream: Annotated[
        bool, typer.Option("--upstream", help="Use llama.cpp's converter, for other architectures; needs torch.")
    ] = False,
    offline: options.Offline = False,
    *,
    output: QuietOutput,
) -> Conversion:
    """Convert BitNet, ternary and plain Llama, Bonsai, Phi-3, Qwen (GPTQ too) and BERT checkpoints without loss.

    \b
    Examples: edgellm convert ./bitnet-b1.58-2B-4T --head q6_k -o bitnet-2b.gguf
              edgellm convert deepgrove/Bonsai
    """
    here = building_workspace(offline=offline, quiet=output.silent)
    needs_engine = upstream or converter.needs_engine(head)
    engine = here.installed_engine if needs_engine else None  # before a download that would be of no use without it
    with progress(quiet=output.silent) as report:
        directory = find_checkpoint(here, source, report)
        if upstream and engine:
            result = convert_with_upstream(_llama_cpp(here, engine), directory, file, outtype=outtype, report=report)
        else:
            quantize = Quantizer(engine.libraries, usable_cores()) if engine else None
            result = converter.convert(
                directory, file, outtype=outtype, head=head, pre=pre, quantize=quantize, report=report
            )
    return render(output, result, lambda result: _print(result, quiet=output.quiet))


def _llama_cpp(here: Workspace, engine: InstalledEngine) -> Path:
    """The tree the engine was built from, unpacked again if the cache was emptied since."""

    work = here.settings.builds / engine.directory.name
    archive = fetch(here.stack.upstream.archive, here.settings.downloads)
    return prepare(here.stack, archive, work).llama_cpp


def _print(result: Conversion, *, quiet: bool) -> None:

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
    print_table(("TYPE", "TENSORS", "WEIGHTS", "SIZE", "BITS/WEIGHT"), rows, right=(1, 2, 3, 4), spare=("WEIGHTS",))
    if not quiet:
        for text in result.notes:
            note(f"note: {text}")
        note(f"next: {first_use(kind_of_file(result.path), str(result.path))}")
