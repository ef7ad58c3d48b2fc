"""`edgellm quality MODEL --against BASE`: what quantization cost a model, measured on a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.commands.workspace import workspace
from edgellm.ui import options

if TYPE_CHECKING:
    from edgellm.measure.quality import Quality


def quality(
    model: Annotated[str, typer.Argument(help="A model's name, or the path of a GGUF file.")],
    against: Annotated[str | None, typer.Option("--against", "-a", help="The model it was made from.")] = None,
    text: Annotated[
        Path | None, typer.Option("--text", "-f", help="A UTF-8 text to measure on. [default: ours, 33 kB]")
    ] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", min=8, help="Read at most so many tokens of it.")] = None,
    ctx_size: Annotated[
        int | None, typer.Option("--ctx-size", "-c", min=8, help="Tokens of a window. [default: 512]")
    ] = None,
    threads: options.Threads = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    offline: options.Offline = False,
) -> None:
    """Measure perplexity, and against a base KL divergence and how often both would say the same.

    \b
    Examples: edgellm quality smollm2
              edgellm quality small.gguf --against original.gguf --text wiki.test.raw
    """
    from edgellm.measure.quality import QualityOptions, Watch, measure
    from edgellm.measure.sample import read_sample
    from edgellm.ui.console import note, print_json
    from edgellm.ui.interrupt import Interrupt
    from edgellm.ui.progress import progress

    sample = read_sample(text)
    here = workspace(offline=offline)
    path, _ = here.model_file(model, quiet=quiet or as_json)
    base = here.model_file(against, quiet=quiet or as_json)[0] if against else None
    how = QualityOptions(ctx_size, tokens, threads, force)
    engine = here.engine()
    with Interrupt() as interrupt, progress(quiet=quiet or as_json) as report:
        found = measure(engine, path, sample, how, against=base, watch=Watch(report, interrupt.requested))
    if as_json:
        print_json(found)
    else:
        print_quality(found)
    if not found.complete:
        note("stopped before the end of the text; the numbers are of the part that was read")
        raise typer.Exit(130)


def print_quality(found: Quality) -> None:
    """The result for people: one line to remember, and what stands behind it."""
    from edgellm.ui.console import print_fields, print_line
    from edgellm.ui.units import duration, size

    model, base, divergence = found.model, found.base, found.divergence
    where = f"on {size(found.text_bytes)} of text" if found.complete else f"on {found.n_tokens:,} tokens of text"
    fields = []
    if base is None or divergence is None:
        error = f"{model.perplexity.error:.2f}"
        print_line(f"quality of {model.quant} {where}: perplexity {_perplexity(model.perplexity.value)} ± {error}")
    else:
        change = f"{_perplexity(base.perplexity.value)} -> {_perplexity(model.perplexity.value)}"
        print_line(
            f"quality against {base.quant} {where}: perplexity {change} ({100 * divergence.perplexity_change:+.1f} %)"
            f"   KLD {divergence.mean:.3g}   same top token {100 * divergence.same_top:.1f} %"
        )
        spread = f"median {divergence.median:.3g}, 99 % {divergence.p99:.3g}, most {divergence.maximum:.3g}"
        fields.append(("KLD", f"{spread}; perplexity change ± {100 * divergence.perplexity_change_error:.1f} %"))
    windows = f"windows of {found.n_ctx:,} tokens of {found.text}"
    fields.append(("from", f"{found.n_positions:,} positions in {windows}, in {duration(found.seconds)}"))
    print_fields(fields)


def _perplexity(value: float) -> str:
    return f"{value:.2f}" if value < 1000 else f"{value:,.0f}"
