"""The result of a quantization, or of a dry run: the file, its tensors, its size, and notes for the user.

result = describe(gguf, plan, path, n_bytes, memory, seconds, notes, dry_run=True)
result.bpw, result.tensors[0].target
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import UsageError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.models.fit.memory import MemoryNeed
from edgellm.weights.convert.conversion import TypeCount
from edgellm.weights.quantize.mixes import Mix
from edgellm.weights.quantize.plan import PlannedTensor, QuantizationPlan

# The name of a quantization at the end of a file name: "-Q4_K_M", ".F16", "_i2_s".
_TYPE_SUFFIX = re.compile(r"[-._](?:I?Q\d\w*|TQ\d_\d|I2_S|[MN]X?V?FP4\w*|B?F16|F32)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TensorChoice:
    """One tensor: `shape` in ne order; `wanted` names the type that did not fit its rows, or is None."""

    name: str
    shape: tuple[int, ...]
    source: str
    target: str
    wanted: str | None
    action: str
    n_bytes: int
    bpw: float


@dataclass(frozen=True, slots=True)
class Quantization:
    """The new file; `n_bytes` is its size, `memory` its memory need at the default context."""

    path: Path
    source: Path
    architecture: str
    type: str
    n_bytes: int
    source_bytes: int
    n_params: int
    memory: MemoryNeed
    seconds: float
    types: tuple[TypeCount, ...]
    tensors: tuple[TensorChoice, ...]
    notes: tuple[str, ...]
    dry_run: bool

    @property
    def bpw(self) -> float:
        """Bits per weight over all tensors."""
        return 8 * sum(tensor.n_bytes for tensor in self.tensors) / self.n_params


def output_path(source: Path, output: Path | None, mix: Mix) -> Path:
    """Return the output path, by default NAME-TYPE.gguf in the working directory; UsageError if it is not usable."""
    path = output or Path(f"{_TYPE_SUFFIX.sub('', source.stem)}-{mix}.gguf")
    if path.is_dir():
        raise UsageError(f"{path} is a directory", hint=f"-o {path / f'{source.stem}-{mix}.gguf'}")
    if path.exists() and path.samefile(source):
        raise UsageError(f"{path} is the model itself", hint="choose another name with -o")
    return path


def describe(
    gguf: GGUFFile,
    plan: QuantizationPlan,
    path: Path,
    n_bytes: int,
    memory: MemoryNeed,
    seconds: float,
    notes: Sequence[str],
    *,
    dry_run: bool,
) -> Quantization:
    """Assemble the result; its notes are those about fallback types, followed by `notes`."""
    return Quantization(
        path=path,
        source=gguf.path,
        architecture=gguf.architecture,
        type=plan.mix.name,
        n_bytes=n_bytes,
        source_bytes=gguf.size,
        n_params=gguf.n_params,
        memory=memory,
        seconds=seconds,
        types=_types(plan),
        tensors=tuple(_choice(tensor) for tensor in plan.tensors),
        notes=(*_fallback_notes(plan), *notes),
        dry_run=dry_run,
    )


def _types(plan: QuantizationPlan) -> tuple[TypeCount, ...]:
    groups: dict[str, list[PlannedTensor]] = {}
    for tensor in plan.tensors:
        groups.setdefault(tensor.target.name, []).append(tensor)
    counts = [
        TypeCount(name, len(group), sum(t.n_params for t in group), sum(t.n_bytes for t in group))
        for name, group in groups.items()
    ]
    return tuple(sorted(counts, key=lambda count: -count.n_bytes))


def _choice(tensor: PlannedTensor) -> TensorChoice:
    return TensorChoice(
        name=tensor.name,
        shape=tensor.shape,
        source=tensor.source.name,
        target=tensor.target.name,
        wanted=tensor.wanted.name if tensor.wanted is not tensor.target else None,
        action=tensor.action.value,
        n_bytes=tensor.n_bytes,
        bpw=8 * tensor.n_bytes / tensor.n_params,
    )


def _fallback_notes(plan: QuantizationPlan) -> Iterator[str]:
    """Yield one sentence for all tensors that lose the same type for the same reason."""
    for (wanted, target, row), n in Counter((t.wanted, t.target, t.shape[0]) for t in plan.fallbacks).items():
        tensors = "1 tensor is" if n == 1 else f"{n} tensors are"
        yield f"{tensors} {target} instead of {wanted}: rows of {row} are not a multiple of {wanted.block_size}"
