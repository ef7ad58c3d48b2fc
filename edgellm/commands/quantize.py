"""`edgellm quantize MODEL TYPE`: the same model in smaller tensor types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from edgellm.engine.base import Engine
from edgellm.errors import UsageError
from edgellm.measure.quality import Quality, QualityOptions, measure
from edgellm.measure.sample import Sample, read_sample
from edgellm.models.local.description import first_use, kind_of_file
from edgellm.progress import Observer
from edgellm.ui import options
from edgellm.ui.console import note, print_fields, print_line, print_table
from edgellm.ui.interrupt import Interrupt
from edgellm.ui.local_engine import building_workspace
from edgellm.ui.local_model import find_model
from edgellm.ui.options import QuietOutput
from edgellm.ui.progress import progress
from edgellm.ui.quality_table import print_quality
from edgellm.ui.render import render
from edgellm.units import count, duration, parse_size, size
from edgellm.weights.quantize import quantizer
from edgellm.weights.quantize.plan import Rule
from edgellm.weights.quantize.quantization import Quantization, TensorChoice

_LAYER = re.compile(r"\bblk\.\d+\.")


@dataclass(frozen=True, slots=True)
class QuantizedModel(Quantization):
    """`quality` is what was measured with --check, null without."""

    quality: Quality | None = None

    @classmethod
    def of(cls, result: Quantization, quality: Quality | None) -> QuantizedModel:
        """A quantization, and what was measured of it."""
        values: dict[str, Any] = {each.name: getattr(result, each.name) for each in fields(result)}
        return cls(**values, quality=quality)


def quantize(
    model: Annotated[str, typer.Argument(help="A model's name, or the path of a GGUF file.")],
    type_name: Annotated[
        str | None,
        typer.Argument(
            metavar="[TYPE]", help="Q4_K_M, Q8_0, TQ2_0, I2_S ...; see docs/reference/quantization-types.md."
        ),
    ] = None,
    file: Annotated[Path | None, typer.Option("--output", "-o", help="The file. [default: NAME-TYPE.gguf]")] = None,
    head: Annotated[
        str | None, typer.Option("--head", help="Type of embedding and output head. [default: the mix's own]")
    ] = None,
    rule: Annotated[
        list[str] | None, typer.Option("--rule", help="REGEX=TYPE for tensors by name; the first match wins.")
    ] = None,
    imatrix: Annotated[
        Path | None, typer.Option("--imatrix", help="Importance matrix, a GGUF file made by llama-imatrix.")
    ] = None,
    target_size: Annotated[
        str | None, typer.Option("--target-size", help="Choose the best type whose file is no larger: 1.8GB, 900MB.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be made.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="With --dry-run, list every tensor, not one line for those of all layers.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Then measure the result against the source, like `edgellm quality`.")
    ] = False,
    text: Annotated[Path | None, typer.Option("--text", "-f", help="A UTF-8 text for --check. [default: ours]")] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Quantize even if it is quantized already or was not trained ternary.",
            envvar="EDGELLM_QUANTIZE_FORCE",
        ),
    ] = False,
    threads: options.Threads = None,
    offline: options.Offline = False,
    *,
    output: QuietOutput,
) -> QuantizedModel:
    """Quantize a model.

    \b
    Examples: edgellm quantize model-F16.gguf Q4_K_M
              edgellm quantize bitnet-I2_S.gguf TQ2_0 --head q6_k
              edgellm quantize model-F16.gguf Q4_K_M --check
              edgellm quantize model-F16.gguf --target-size 1.8GB --dry-run
    """
    if dry_run and check:
        raise UsageError("--check needs the file that --dry-run does not write", hint="the same without --dry-run")
    sample = read_sample(text) if check else None
    chosen = quantizer.QuantizeOptions(
        head=head,
        rules=tuple(map(Rule.parse, rule or ())),
        imatrix=imatrix,
        target_size=parse_size(target_size, "--target-size") if target_size else None,
        force=force,
        dry_run=dry_run,
        n_threads=threads,
    )
    here = building_workspace(offline=offline, quiet=output.silent)
    path = find_model(here, model, quiet=output.silent).path
    engine = here.engine()
    with progress(quiet=output.silent) as report:
        result = quantizer.quantize(engine, path, type_name, file, chosen, report=report)
    if not output.as_json:  # before the measurement, which takes minutes
        _print(result, everything=everything, quiet=output.quiet)
    found = _measure(engine, result.path, path, sample, threads, quiet=output.silent) if sample else None
    return render(output, QuantizedModel.of(result, found), _print_quality)


def _print_quality(model: QuantizedModel) -> None:
    if model.quality is not None:
        print_quality(model.quality)


def _measure(engine: Engine, path: Path, source: Path, sample: Sample, threads: int | None, *, quiet: bool) -> Quality:
    """Measure what the quantization cost; Ctrl-C keeps the finished file and reports what was measured so far."""
    with Interrupt() as interrupt, progress(quiet=quiet) as report:
        watch = Observer(report, interrupt.requested)
        return measure(engine, path, sample, QualityOptions(n_threads=threads), against=source, watch=watch)


def _print_tensors(tensors: Sequence[TensorChoice], *, everything: bool) -> None:
    """Print what becomes of each tensor; those that differ only in the number of their layer are one row."""
    alike: dict[tuple[Any, ...], list[TensorChoice]] = {}
    for each in tensors:
        name = each.name if everything else _LAYER.sub("blk.N.", each.name)
        alike.setdefault((name, each.shape, each.source, each.target, each.wanted), []).append(each)
    rows = [
        (
            name,
            str(len(same)),
            " x ".join(map(str, shape)),
            source,
            target,
            size(sum(each.n_bytes for each in same)),
            f"{same[0].bpw:.2f}",
            f"instead of {wanted}" if wanted else "",
        )
        for (name, shape, source, target, wanted), same in alike.items()
    ]
    headers = ("TENSOR", "COUNT", "SHAPE", "FROM", "TO", "SIZE", "BITS/WEIGHT", "NOTE")
    print_table(headers, rows, right=(1, 5, 6), spare=("BITS/WEIGHT", "COUNT"))


def _print(result: Quantization, *, everything: bool, quiet: bool) -> None:
    if result.dry_run:
        _print_tensors(result.tensors, everything=everything)
        print_line("")
    rows = [
        (kind.type, str(kind.n_tensors), count(kind.n_params), size(kind.n_bytes), f"{kind.bpw:.2f}")
        for kind in result.types
    ]
    print_table(("TYPE", "TENSORS", "WEIGHTS", "SIZE", "BITS/WEIGHT"), rows, right=(1, 2, 3, 4), spare=("WEIGHTS",))
    print_line("")
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
        use = "" if result.dry_run else first_use(kind_of_file(result.path), str(result.path))
        note(f"next: {use or 'the same without --dry-run'}")
