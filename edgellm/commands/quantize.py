"""`edgellm quantize MODEL TYPE`: the same model in smaller tensor types."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.commands.quality import print_quality
from edgellm.commands.workspace import workspace
from edgellm.ui import options

if TYPE_CHECKING:
    from edgellm.engine.base import Engine
    from edgellm.measure.quality import Quality
    from edgellm.measure.sample import Sample
    from edgellm.weights.quantization import Quantization


def quantize(
    model: Annotated[str, typer.Argument(help="A model's name, or the path of a GGUF file.")],
    type_name: Annotated[
        str | None, typer.Argument(metavar="[TYPE]", help="Q4_K_M, Q8_0, TQ2_0, I2_S ...; see docs/quantize.md.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The file. [default: NAME-TYPE.gguf]")] = None,
    head: Annotated[
        str | None, typer.Option("--head", help="Type of embedding and output head. [default: the mix's own]")
    ] = None,
    rule: Annotated[
        list[str] | None, typer.Option("--rule", help="REGEX=TYPE for tensors by name; the first that matches wins.")
    ] = None,
    imatrix: Annotated[
        Path | None, typer.Option("--imatrix", help="Importance matrix, a GGUF file made by llama-imatrix.")
    ] = None,
    target_size: Annotated[
        str | None, typer.Option("--target-size", help="Choose the best type whose file is no larger: 1.8GB, 900MB.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be made.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Then measure the result against the source, as `edgellm quality` does.")
    ] = False,
    text: Annotated[Path | None, typer.Option("--text", "-f", help="A UTF-8 text for --check. [default: ours]")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Quantize what is quantized already, or was not trained ternary.")
    ] = False,
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    offline: options.Offline = False,
) -> None:
    """Quantize a model.

    \b
    Examples: edgellm quantize model-F16.gguf Q4_K_M
              edgellm quantize bitnet-I2_S.gguf TQ2_0 --head q6_k
              edgellm quantize model-F16.gguf Q4_K_M --check
              edgellm quantize model-F16.gguf --target-size 1.8GB --dry-run
    """
    from edgellm.errors import UsageError
    from edgellm.measure.sample import read_sample
    from edgellm.ui.console import print_json, to_json
    from edgellm.ui.progress import progress
    from edgellm.ui.units import parse_size
    from edgellm.weights import quantizer
    from edgellm.weights.quantization_plan import Rule

    if dry_run and check:
        raise UsageError("--check needs the file that --dry-run does not write", hint="the same without --dry-run")
    sample = read_sample(text) if check else None
    chosen = quantizer.Options(
        head=head,
        rules=tuple(map(Rule.parse, rule or ())),
        imatrix=imatrix,
        target_size=parse_size(target_size, "--target-size") if target_size else None,
        force=force,
        dry_run=dry_run,
        n_threads=threads,
    )
    here = workspace(offline=offline)
    path, _ = here.model_file(model, quiet=quiet or as_json)
    engine = here.engine()
    with progress(quiet=quiet or as_json) as report:
        result = quantizer.quantize(engine, path, type_name, output, chosen, report=report)
    if not as_json:
        _show(result, quiet=quiet)
    found = _measure(engine, result.path, path, sample, threads, quiet=quiet or as_json) if sample else None
    if as_json:
        print_json(to_json(result) | ({"quality": to_json(found)} if found else {}))
    elif found:
        print_quality(found)


def _measure(engine: Engine, path: Path, source: Path, sample: Sample, threads: int | None, *, quiet: bool) -> Quality:
    """What the quantization cost; Ctrl-C leaves the finished file and reports what was measured so far."""
    from edgellm.measure.quality import QualityOptions, Watch, measure
    from edgellm.ui.interrupt import Interrupt
    from edgellm.ui.progress import progress

    with Interrupt() as interrupt, progress(quiet=quiet) as report:
        watch = Watch(report, interrupt.requested)
        return measure(engine, path, sample, QualityOptions(n_threads=threads), against=source, watch=watch)


def _show(result: Quantization, *, quiet: bool) -> None:
    from edgellm.ui.console import note, print_fields, print_table
    from edgellm.ui.units import count, duration, size

    if result.dry_run:
        tensors = [
            (
                tensor.name,
                " x ".join(map(str, tensor.shape)),
                tensor.source,
                tensor.target,
                size(tensor.n_bytes),
                f"{tensor.bpw:.2f}",
                f"instead of {tensor.wanted}" if tensor.wanted else "",
            )
            for tensor in result.tensors
        ]
        print_table(("TENSOR", "SHAPE", "FROM", "TO", "SIZE", "BITS/WEIGHT", ""), tensors, right=(4, 5))
        typer.echo()
    rows = [
        (kind.type, str(kind.n_tensors), count(kind.n_params), size(kind.n_bytes), f"{kind.bpw:.2f}")
        for kind in result.types
    ]
    print_table(("TYPE", "TENSORS", "WEIGHTS", "SIZE", "BITS/WEIGHT"), rows, right=(1, 2, 3, 4))
    typer.echo()
    took = "nothing is written yet" if result.dry_run else f"in {duration(result.seconds)}"
    need = result.memory
    print_fields(
        [
            ("file", f"{result.path}  {took}"),
            ("size", f"{size(result.n_bytes)}, {result.bpw:.2f} bits a weight; it was {size(result.source_bytes)}"),
            ("memory", f"{size(need.total)} at the default context, {size(need.kv_cache)} of it KV cache"),
        ]
    )
    if not quiet:
        for text in result.notes:
            note(f"note: {text}")
        note("next: the same without --dry-run" if result.dry_run else f"next: edgellm chat {result.path}")
