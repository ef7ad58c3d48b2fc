"""A finished GGUF model out of a checkpoint: converted, and then quantized where its recipe or its type asks for it.

    path = convert_and_quantize(checkpoint, plan, work, engine=workspace.engine, report=bar)

Every stage reports by a name of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgellm.engine.llama import LlamaEngine
from edgellm.engine.quantize import Quantizer
from edgellm.machine.cpu import usable_cores
from edgellm.models.pull import PullPlan
from edgellm.models.recipe import ConvertOptions
from edgellm.progress import Report, silent
from edgellm.weights.convert import converter
from edgellm.weights.convert.checkpoints import read_checkpoint
from edgellm.weights.convert.packed_e5 import repack
from edgellm.weights.quantize import quantizer


def convert_and_quantize(
    checkpoint: Path, plan: PullPlan, work: Path, *, engine: Callable[[], LlamaEngine], report: Report = silent
) -> Path:
    """The model of a plan, as a file in the directory `work`; `engine` is for the types that only it can make.

    A checkpoint that is a file is repacked as it is.

    Raises:
        CorruptFile, UnsupportedModel, UsageError: the checkpoint cannot become that model.
        EngineMissing, DiskFull.
    """
    if checkpoint.is_file():
        repack(checkpoint, work / "converted.gguf", report=report)
        return work / "converted.gguf"
    wanted = plan.convert or ConvertOptions()
    outtype, quantize = _route(checkpoint, plan.choice.quant, wanted)
    head = None if quantize else wanted.head
    codec = Quantizer(engine().installed.libraries, usable_cores()) if converter.needs_engine(head) else None
    loaded = engine() if quantize else None  # it may be missing: better to fail now than after an hour of converting
    first = converter.convert(
        checkpoint,
        work / "converted.gguf",
        outtype=outtype,
        head=head,
        pre=wanted.pre,
        quantize=codec,
        report=report,
    )
    if loaded is None or quantize is None:
        return first.path
    options = quantizer.QuantizeOptions(head=wanted.head)
    return quantizer.quantize(loaded, first.path, quantize, work / "quantized.gguf", options, report=report).path


def _route(checkpoint: Path, quant: str | None, wanted: ConvertOptions) -> tuple[str | None, str | None]:
    """The type to convert to, and the quantization after that, if any."""
    if wanted.outtype or wanted.quantize or quant is None:
        return wanted.outtype, wanted.quantize
    types = read_checkpoint(checkpoint)[1].types
    return (quant, None) if quant.upper() in types else (None, quant)
