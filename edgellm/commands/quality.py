"""`edgellm quality MODEL --against BASE`: what quantization cost a model, measured on a text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgellm.exit_codes import ExitCode
from edgellm.measure.quality import Quality, QualityOptions, measure
from edgellm.measure.sample import read_sample
from edgellm.progress import Observer
from edgellm.ui import options
from edgellm.ui.console import note
from edgellm.ui.interrupt import Interrupt
from edgellm.ui.local_engine import building_workspace
from edgellm.ui.local_model import find_model
from edgellm.ui.options import QuietOutput
from edgellm.ui.progress import progress
from edgellm.ui.quality_table import print_quality
from edgellm.ui.render import render


def quality(
    model: Annotated[str, typer.Argument(help="A model's name, or the path of a GGUF file.")],
    against: Annotated[str | None, typer.Option("--against", "-a", help="The model it was made from.")] = None,
    text: Annotated[
        Path | None, typer.Option("--text", "-f", help="A UTF-8 text to measure on. [default: ours, 33 kB]")
    ] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=8, help="Read at most this many of its tokens.")] = None,
    ctx_size: Annotated[
        int | None,
        typer.Option(
            "--ctx-size", "-c", min=8, help="Tokens in a window. [default: 512]", envvar="EDGELLM_QUALITY_CTX_SIZE"
        ),
    ] = None,
    threads: options.Threads = None,
    force: options.Force = False,
    offline: options.Offline = False,
    *,
    output: QuietOutput,
) -> Quality:
    """Measure perplexity; against a base also the KL divergence, and how often both choose the same token.

    \b
    Examples: edgellm quality smollm2
              edgellm quality small.gguf --against original.gguf --text wiki.test.raw
    """
    sample = read_sample(text)
    here = building_workspace(offline=offline, quiet=output.silent)
    path = find_model(here, model, quiet=output.silent).path
    base = find_model(here, against, quiet=output.silent).path if against else None
    how = QualityOptions(ctx_size, tokens, threads, force)
    engine = here.engine()
    with Interrupt() as interrupt, progress(quiet=output.silent) as report:
        found = measure(engine, path, sample, how, against=base, watch=Observer(report, interrupt.requested))
    render(output, found, print_quality)
    if not found.complete:
        note("stopped before the end of the text; the numbers cover the part that was read")
        raise typer.Exit(ExitCode.INTERRUPTED)
    return found
