"""Writes a GGUF file again with other tensor types, tensor by tensor, and exactly where the types allow it.

All checks come before the first byte is written. Memory holds one mapped tensor of the source and a few slabs.

    result = quantize(engine, Path("model-F16.gguf"), "Q4_K_M", None, QuantizeOptions())
    result.path, result.bpw, result.notes
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from edgellm.engine.llama import LlamaEngine
from edgellm.engine.mix import MixedTensor, mix_types
from edgellm.engine.quantize import Quantizer
from edgellm.errors import CorruptFile, EngineError, UsageError
from edgellm.formats.gguf_file import GGUFFile, TensorInfo
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.machine.cpu import usable_cores
from edgellm.models.fit.memory import MemoryNeed, RunPlan, choose_context, estimate
from edgellm.models.fit.outline import Outline, layer_count
from edgellm.progress import Progress, Report, silent
from edgellm.weights.quantize.check import check, trained_heads
from edgellm.weights.quantize.imatrix import Imatrix, read_imatrix
from edgellm.weights.quantize.mixes import Mix, named_mix
from edgellm.weights.quantize.plan import Action, QuantizationPlan, Rule, make_plan
from edgellm.weights.quantize.quantization import Quantization, describe, output_path
from edgellm.weights.quantize.target_size import Candidate, candidates, choose, megabytes
from edgellm.weights.tensor_codec import encode

# Version of ggml's block layouts (GGML_QNT_VERSION).
_QUANTIZATION_VERSION = 2
# Types of models that are not quantized.
_PLAIN = frozenset({"F32", "F16", "BF16"})
_KEEPING = (Action.COPY, Action.TRANSCODE)


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """How to quantize; see `edgellm quantize --help`. `target_size` is in bytes."""

    head: str | None = None
    rules: tuple[Rule, ...] = ()
    imatrix: Path | None = None
    target_size: int | None = None
    force: bool = False
    dry_run: bool = False
    n_threads: int | None = None


def quantize(
    engine: LlamaEngine,
    source: Path,
    type_name: str | None,
    output: Path | None,
    options: QuantizeOptions,
    *,
    report: Report = silent,
) -> Quantization:
    """Write `source` with the tensor types of a mix; the file appears when it is complete, or not at all.

    Without `type_name`, `options.target_size` chooses the mix. The default `output` is NAME-TYPE.gguf in the
    working directory.

    Raises UsageError for an unknown type or for a loss that needs `force`, LossyTranscode, ModelNotFound,
    CorruptFile, UnsupportedModel, DiskFull.
    """
    started = time.monotonic()
    imatrix = read_imatrix(options.imatrix) if options.imatrix else None
    codec = Quantizer(engine.installed.libraries, options.n_threads or usable_cores())
    with GGUFFile.open(source) as gguf:
        planner = _Planner(engine, gguf, options, imatrix, codec)
        plan, notes = planner.plan(type_name)
        path = output_path(source, output, plan.mix)
        notes += check(gguf, plan, codec, imatrix, force=options.force)
        writer = _declared(gguf, plan, path, imatrix)
        if not options.dry_run:
            with writer:
                _write(writer, gguf, plan, codec, imatrix, force=options.force, report=report)
            _check_written(path, plan)
        memory = _memory(gguf, plan)
        seconds = time.monotonic() - started
        return describe(gguf, plan, path, writer.nbytes, memory, seconds, notes, dry_run=options.dry_run)


class _Planner:
    """Makes plans for one file; asks the engine once for each mix."""

    def __init__(
        self, engine: LlamaEngine, gguf: GGUFFile, options: QuantizeOptions, imatrix: Imatrix | None, codec: Quantizer
    ) -> None:
        if gguf.get_int("split.count", 0) > 1:
            why = "it is one part of a split model"
            raise UsageError(f"{gguf.path.name} cannot be quantized alone", why=why, hint="llama-gguf-split --merge")
        if gguf.key("block_count") in gguf.metadata:
            layer_count(gguf)  # checked before the engine opens the file
        self._engine, self._gguf, self._options, self._imatrix, self._codec = engine, gguf, options, imatrix, codec
        self._mixed: dict[int, dict[str, MixedTensor]] = {}

    def plan(self, type_name: str | None) -> tuple[QuantizationPlan, list[str]]:
        """Return the plan for the named mix, or for the best mix within the target size, and notes on that choice."""
        limit = self._options.target_size
        if type_name is not None and limit is None:
            return self._make(named_mix(type_name), self._options.head), []
        if type_name is not None or limit is None:
            raise UsageError("give either a type or --target-size", hint="edgellm quantize MODEL Q4_K_M")
        types = {info.type.name for info in self._gguf.tensors.values()}
        ternary = Counter(info.type.name for info in self._gguf.tensors.values() if info.type.one_magnitude)
        if self._gguf.size <= limit and not ternary and not types <= _PLAIN:
            raise UsageError(
                f"{self._gguf.path.name} is no larger than that already",
                why=f"it has {megabytes(self._gguf.size)}; quantized once more it would only lose precision",
                hint="a smaller --target-size",
            )
        tries = candidates(
            ternary=ternary.most_common(1)[0][0] if ternary else None,
            has_imatrix=self._imatrix is not None,
            head=self._options.head,
        )
        chosen = choose(limit, tries, self._n_bytes)
        return self._make(chosen.mix, chosen.head), [f"{chosen} is the best that fits into {megabytes(limit)}"]

    def _n_bytes(self, candidate: Candidate) -> int:
        plan = self._make(candidate.mix, candidate.head)
        return _declared(self._gguf, plan, self._gguf.path, self._imatrix).nbytes

    def _make(self, mix: Mix, head: str | None) -> QuantizationPlan:
        mixed = self._mixed.get(mix.plan)
        if mixed is None:
            mixed = mix_types(self._engine, self._gguf.path, mix.plan, has_imatrix=self._imatrix is not None)
            if mixed.keys() != self._gguf.tensors.keys():
                why = "the engine's list of tensors differs from the file's"
                raise EngineError(f"{self._gguf.path.name} cannot be quantized", why=why)
            self._mixed[mix.plan] = mixed
        trained = trained_heads(self._gguf, mix, self._codec)
        return make_plan(self._gguf, mix, mixed, head=head, rules=self._options.rules, trained_heads=trained)


def _declared(gguf: GGUFFile, plan: QuantizationPlan, path: Path, imatrix: Imatrix | None) -> GGUFWriter:
    """Return a writer for the new file with its whole header declared and nothing written."""
    writer = GGUFWriter(path)
    writer.copy_metadata(gguf.metadata)
    writer.add("general.file_type", plan.mix.file_type)
    if any(tensor.action not in _KEEPING for tensor in plan.tensors):
        writer.add("general.quantization_version", _QUANTIZATION_VERSION)
    if imatrix is not None:
        # The keys that llama-quantize writes.
        writer.add("quantize.imatrix.file", imatrix.path.name)
        if imatrix.datasets:
            writer.add("quantize.imatrix.dataset", imatrix.datasets[0])
        writer.add("quantize.imatrix.entries_count", len(imatrix.importance))
        writer.add("quantize.imatrix.chunks_count", imatrix.n_chunks)
    for tensor in plan.tensors:
        writer.declare(tensor.name, tensor.shape, tensor.target)
    return writer


def _write(
    writer: GGUFWriter,
    gguf: GGUFFile,
    plan: QuantizationPlan,
    codec: Quantizer,
    imatrix: Imatrix | None,
    *,
    force: bool,
    report: Report,
) -> None:
    importance = imatrix.importance if imatrix else {}
    total, done = sum(gguf.tensors[tensor.name].nbytes for tensor in plan.tensors), 0
    for tensor in plan.tensors:
        report(Progress("quantizing", done, total, "B"))
        writer.write(tensor.name, encode(gguf, tensor, codec, importance=importance.get(tensor.name), force=force))
        gguf.release(tensor.name)
        done += gguf.tensors[tensor.name].nbytes
    report(Progress("quantizing", done, total, "B"))


def _check_written(path: Path, plan: QuantizationPlan) -> None:
    """Read the types back; delete the file and raise CorruptFile when they differ from the plan."""
    with GGUFFile.open(path) as written:
        types = {name: info.type for name, info in written.tensors.items()}
    if types != {tensor.name: tensor.target for tensor in plan.tensors}:
        path.unlink()
        raise CorruptFile(f"{path.name} was not written correctly", why="its tensor types are not those of the plan")


def _memory(gguf: GGUFFile, plan: QuantizationPlan) -> MemoryNeed:
    n_ctx = choose_context(gguf.get_int(gguf.key("context_length")), None)
    tensors = tuple(TensorInfo(tensor.name, tensor.shape, tensor.target, 0, tensor.n_bytes) for tensor in plan.tensors)
    outline = replace(Outline.of([gguf]), tensors=tensors, n_bytes=sum(tensor.nbytes for tensor in tensors))
    return estimate(outline, RunPlan(n_ctx=n_ctx))
