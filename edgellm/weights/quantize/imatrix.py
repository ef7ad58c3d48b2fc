"""Reads importance matrices: how much each column of a weight matrix matters, as measured by llama-imatrix.

The GGUF file holds two F32 tensors for each weight tensor: `NAME.in_sum2`, [columns, experts], the sums of the
squared activations, and `NAME.counts`, [1, experts], the number of activations summed.

    imatrix = read_imatrix(Path("model.imatrix.gguf"))
    imatrix.importance["blk.0.ffn_up.weight"]         # float32 [experts, columns]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.errors import CorruptFile
from edgellm.formats.gguf_file import GGUFFile, TensorInfo
from edgellm.formats.gguf_metadata import GGUFArray
from edgellm.formats.quant_types import QuantType

_SUMS, _COUNTS = ".in_sum2", ".counts"
HEADS = ("token_embd.weight", "output.weight")

# Without a matrix, the engine aborts the process for the first three types and produces garbage for the others.
_IMPOSSIBLE = ("IQ2_XXS", "IQ2_XS", "IQ1_S")
_POOR = (*_IMPOSSIBLE, "IQ3_XXS", "IQ2_S", "IQ1_M")


@dataclass(frozen=True, slots=True)
class Imatrix:
    """The mean squared activation of each column, by tensor, and the file it was read from."""

    path: Path
    importance: dict[str, npt.NDArray[np.float32]]
    datasets: tuple[str, ...]
    n_chunks: int


def needs_importance(name: str, target: QuantType, mix: str = "") -> bool:
    """Whether a tensor of this type is useless without an importance matrix (the engine's own rule)."""
    if name in HEADS:
        return target.name in _IMPOSSIBLE
    return target.name in _POOR or (target.name == "Q2_K" and mix == "Q2_K_S")


def read_imatrix(path: Path) -> Imatrix:
    """Read an importance matrix; CorruptFile when the file is something else or its numbers are invalid."""
    with GGUFFile.open(path) as gguf:
        names = [name.removesuffix(_SUMS) for name in gguf.tensors if name.endswith(_SUMS)]
        if not names:
            why = "it has no tensors NAME.in_sum2; llama-imatrix converts an old imatrix.dat"
            raise CorruptFile(f"{path.name} is not an importance matrix", why=why, path=str(path))
        datasets = gguf.metadata.get("imatrix.datasets")
        return Imatrix(
            path=path,
            importance={name: _mean(gguf, name) for name in names},
            datasets=tuple(map(str, datasets)) if isinstance(datasets, GGUFArray) else (),
            n_chunks=gguf.get_int("imatrix.chunk_count", 0),
        )


def _mean(gguf: GGUFFile, name: str) -> npt.NDArray[np.float32]:
    """Return sums / counts; an expert that no token reached gets the same weight for all its columns."""
    sums, counts = (gguf.tensors.get(name + suffix) for suffix in (_SUMS, _COUNTS))
    if sums is None or counts is None or {sums.type.name, counts.type.name} != {"F32"}:
        raise _corrupt(gguf, name, "it has no sums and counts in F32")
    experts = counts.n_params
    if sums.n_params != sums.shape[0] * experts:
        raise _corrupt(gguf, name, f"it has sums {list(sums.shape)} and counts {list(counts.shape)}")
    total = _floats(gguf, sums).reshape(experts, -1)
    count = np.rint(_floats(gguf, counts)).reshape(experts, 1)
    if not (np.isfinite(total).all() and (total >= 0).all() and np.isfinite(count).all()):
        raise _corrupt(gguf, name, "its numbers are not finite and positive")
    mean: npt.NDArray[np.float32] = np.where(count > 0, total / np.maximum(count, 1), 1).astype(np.float32)
    return mean


def _floats(gguf: GGUFFile, info: TensorInfo) -> npt.NDArray[np.float32]:
    return gguf.tensor_bytes(info).view(np.float32)


def _corrupt(gguf: GGUFFile, name: str, why: str) -> CorruptFile:
    return CorruptFile(f"the importance matrix {gguf.path.name} is corrupt", why=f"{name}: {why}", tensor=name)
