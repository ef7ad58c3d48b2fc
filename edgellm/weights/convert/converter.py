"""Converts a checkpoint directory to a GGUF file, tensor by tensor, and exactly where the types allow it.

Everything is checked before the first byte is written: the architecture, the quantization, the names and
shapes of all tensors, the tokenizer, and whether the types fit. Memory holds one slab of one tensor.

    result = convert(Path("bitnet-b1.58-2B-4T"), Path("bitnet-I2_S.gguf"), outtype="I2_S", head="Q6_K", ...)
    result.types  # the types really in the file, read back from it
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgellm.errors import CorruptFile, UnsupportedModel, UsageError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.quant_types import QuantType, named_type, tensor_nbytes
from edgellm.formats.ternary import BLOCK_CODECS, Bytes, i2_s_tail
from edgellm.progress import Progress, Report, silent
from edgellm.weights.convert.checkpoints import read_checkpoint
from edgellm.weights.convert.checkpoints.plan import ConversionPlan, ConvertedTensor, Role
from edgellm.weights.convert.checkpoints.source import Source
from edgellm.weights.convert.conversion import Conversion, describe
from edgellm.weights.convert.generation import generation_notes
from edgellm.weights.convert.tokenizers import MetadataValue, name_for_engine, read_vocabulary, tokenizer_metadata
from edgellm.weights.slabs import FLOAT_TYPES, Floats, Latent, Ternary, Values, holds

Quantize = Callable[[Values, QuantType], Bytes]

# llama.cpp's enum llama_ftype; 40 is bitnet.cpp's I2_S.
_FILE_TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "BF16": 32, "TQ1_0": 36, "TQ2_0": 37, "I2_S": 40, "Q1_0": 40,
    "Q2_0": 41, "Q2_0_G128": 41,
}  # fmt: skip
_QUANTIZATION_VERSION = 2
# Head types that `quantize` makes, without those that need an importance matrix.
_ENGINE_TYPES = ("Q6_K", "Q5_K", "Q4_K", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS")


def convert(
    directory: Path,
    output: Path | None = None,
    *,
    outtype: str | None = None,
    head: str | None = None,
    pre: str | None = None,
    quantize: Quantize | None = None,
    report: Report = silent,
) -> Conversion:
    """Convert a checkpoint directory; the file appears when it is complete, or not at all.

    `outtype` and `head` are tensor types. By default `outtype` is the first type of the checkpoint's format that
    fits its rows, and `head` is the same type if it holds the embedding exactly, else F16. `pre` names the
    pre-tokenizer when the files do not. `quantize` makes head types without a numpy codec (Q6_K). The default
    `output` is NAME-OUTTYPE.gguf in the working directory.

    Raises ModelNotFound, UsageError, CorruptFile, UnsupportedModel, DiskFull.
    """
    started = time.monotonic()
    report(Progress("reading the checkpoint"))
    source, plan = read_checkpoint(directory)
    layout = lay_out(source, plan, outtype=outtype, head=head, pre=pre, quantize=quantize)
    target, types = layout.target, layout.types
    notes = (*plan.notes(target), *generation_notes(directory))
    output = output or Path(f"{source.name}-{target}.gguf")
    if output.is_dir():
        raise UsageError(f"{output} is a directory", hint=f"-o {output / source.name}-{target}.gguf")
    with GGUFWriter(output) as writer:
        for key, value in layout.keys.items():
            writer.add(key, value)
        for tensor in plan.tensors:
            writer.declare(tensor.name, tensor.shape[::-1], types[tensor.name])
        _write(writer, plan, types, quantize, report)
    _check_written(output, types)
    return describe(output, source.name, target.name, layout.head.name, time.monotonic() - started, notes)


@dataclass(frozen=True, slots=True)
class FileLayout:
    """What the file of a checkpoint will hold: its metadata, and the type of each tensor, of matrices and heads."""

    keys: Mapping[str, MetadataValue]
    types: Mapping[str, QuantType]
    target: QuantType
    head: QuantType


def lay_out(
    source: Source,
    plan: ConversionPlan,
    *,
    outtype: str | None = None,
    head: str | None = None,
    pre: str | None = None,
    quantize: Quantize | None = None,
) -> FileLayout:
    """Choose the types and read the tokenizer of a checkpoint; the arguments are those of `convert`.

    Raises UsageError, CorruptFile, UnsupportedModel.
    """
    target = _matrix_type(plan, outtype, source.name)
    head_type = _head_type(plan, target, head, quantize)
    types = {tensor.name: _type_of(tensor, target, head_type) for tensor in plan.tensors}
    _check_rows(plan, types, source.name)
    vocabulary = read_vocabulary(source.directory, plan.n_vocab, name=source.name, pre=pre)
    keys = _metadata(plan, target, name_for_engine(source.name, vocabulary))
    return FileLayout(keys | tokenizer_metadata(source.directory, vocabulary), types, target, head_type)


def needs_engine(head: str | None) -> bool:
    """Whether a head type has no numpy codec and needs the engine's quantizer."""
    return head is not None and named_type(head).name in _ENGINE_TYPES


def _matrix_type(plan: ConversionPlan, outtype: str | None, name: str) -> QuantType:
    target = named_type(outtype or _fitting(plan)[0])
    if target.name not in plan.types:
        hint = f"--outtype {plan.types[0].lower()}"
        raise UnsupportedModel(f"{name} cannot become {target}", why=plan.refusal(target), hint=hint, type=target.name)
    return target


def _head_type(plan: ConversionPlan, target: QuantType, head: str | None, quantize: Quantize | None) -> QuantType:
    if head is None:
        return target if target.name in FLOAT_TYPES or _heads_are(plan, target) else named_type("F16")
    chosen = named_type(head)
    if chosen.name not in (*FLOAT_TYPES, *_ENGINE_TYPES, *BLOCK_CODECS):
        types = ", ".join((*FLOAT_TYPES, *_ENGINE_TYPES, *BLOCK_CODECS))
        raise UsageError(f"an embedding cannot be {chosen}", hint=f"types for --head are {types}", type=chosen.name)
    if needs_engine(head) and quantize is None:
        why = f"{chosen} needs the engine, which is not installed"
        raise UsageError(f"--head {chosen} is not possible", why=why, hint="edgellm engine build, or --head q8_0")
    return chosen


def _heads_are(plan: ConversionPlan, target: QuantType) -> bool:
    """Whether embedding and output head look as if they were trained for a type of one magnitude, too."""
    if target.name not in BLOCK_CODECS:
        return False
    first = (next(iter(tensor.read())) for tensor in plan.tensors if tensor.role is Role.HEAD)
    return all(isinstance(slab, Floats) and holds(target, slab.values) for slab in first)


def _type_of(tensor: ConvertedTensor, target: QuantType, head_type: QuantType) -> QuantType:
    return {Role.MATRIX: target, Role.HEAD: head_type, Role.VECTOR: named_type("F32")}[tensor.role]


def _check_rows(plan: ConversionPlan, types: Mapping[str, QuantType], name: str) -> None:
    """Raise for a type whose blocks do not divide the rows: no tensor silently gets another type."""
    for tensor in plan.tensors:
        chosen = types[tensor.name]
        if chosen.fits(tensor.shape[::-1]):
            continue
        why = f"{tensor.name} has rows of {tensor.shape[-1]}, not a multiple of {chosen}'s block of {chosen.block_size}"
        if tensor.role is Role.HEAD:
            raise UsageError(f"--head {chosen} is not possible", why=why, hint="--head q8_0 or f16", type=chosen.name)
        hint = f"--outtype {_fitting(plan)[0].lower()} fits"
        raise UnsupportedModel(f"{name} cannot become {chosen}", why=why, hint=hint, type=chosen.name)


def _fitting(plan: ConversionPlan) -> list[str]:
    """Return the plan's types whose blocks divide the rows of all matrices, best first."""
    rows = {tensor.shape[-1] for tensor in plan.tensors if tensor.role is Role.MATRIX}
    return [name for name in plan.types if all(named_type(name).fits((row,)) for row in rows)]


def _metadata(plan: ConversionPlan, target: QuantType, name: str) -> dict[str, MetadataValue]:
    architecture = plan.renamed.get(target.name, plan.architecture)
    general: dict[str, MetadataValue] = {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": name,
        "general.file_type": _FILE_TYPES[target.name],
        "general.quantization_version": _QUANTIZATION_VERSION,
    }
    return general | {f"{architecture}.{suffix}": value for suffix, value in plan.keys.items()}


def _write(
    writer: GGUFWriter,
    plan: ConversionPlan,
    types: Mapping[str, QuantType],
    quantize: Quantize | None,
    report: Report,
) -> None:
    sizes = {tensor.name: tensor_nbytes(types[tensor.name], tensor.shape[::-1]) for tensor in plan.tensors}
    total, done = sum(sizes.values()), 0
    for tensor in plan.tensors:
        report(Progress("converting", done, total, "B"))
        try:
            writer.write(tensor.name, _encoded(tensor, types[tensor.name], quantize))
        except UnsupportedModel as error:
            error.why = f"tensor {tensor.name}: {error.why}"
            raise
        done += sizes[tensor.name]
    report(Progress("converting", done, total, "B"))


def _encoded(tensor: ConvertedTensor, target: QuantType, quantize: Quantize | None) -> Iterator[Bytes]:
    """Yield the bytes of a tensor slab by slab, ending with the scale for I2_S."""
    scale = np.float32(0)
    for slab in tensor.read():
        if isinstance(slab, Latent):
            slab = slab.ternary
        if quantize is not None and target.name in _ENGINE_TYPES and isinstance(slab, Floats):
            yield quantize(slab.values, target)
        else:
            yield slab.encode(target)
        if isinstance(slab, Ternary):
            scale = slab.scales[0]
    if target.name == "I2_S":
        yield np.frombuffer(i2_s_tail(float(scale)), np.uint8)


def _check_written(path: Path, types: Mapping[str, QuantType]) -> None:
    """Read the types back; delete the file and raise CorruptFile when they are not the requested ones."""
    with GGUFFile.open(path) as written:
        wrong = sorted(name for name, info in written.tensors.items() if types.get(name) != info.type)
        if wrong or len(written.tensors) != len(types):
            path.unlink()
            why = f"the file does not hold the requested tensor types: {', '.join(wrong[:4])}"
            raise CorruptFile(f"{path.name} was not written correctly", why=why)
