"""The tensors of a GGUF file one by one: type, shape, bytes, and for ternary weights the scales.

table = tensor_table(gguf)
table.embedding_bytes, table.tensors[0].scales
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgellm.formats.gguf_file import GGUFFile, TensorInfo
from edgellm.formats.ternary import TQ1_0_BLOCK, TQ2_0_BLOCK, block_scales, i2_s_scale

# Tables of vectors and the output head: read by the row, or once for all tokens of a batch.
EMBEDDINGS = ("token_embd", "output", "per_layer_token_embd", "position_embd", "token_types")
_BLOCK = 256
_SAMPLE = 1 << 16
# With activations quantised per token, or per 256 columns; or by upstream's product, because a row has blocks with
# different scales or more columns than the kernels take.
Product = Literal["token", "segment", "upstream"]
MAX_COLUMNS = 1 << 16


@dataclass(frozen=True, slots=True)
class Scales:
    """The different scales of a ternary tensor: how many, the smallest and the largest in magnitude."""

    count: int
    smallest: float
    largest: float


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: `shape` in ne order.

    `ternary` says whether its weights are all -scale, 0 or +scale: so for ternary types, and for plain floats when
    the first 65,536 weights are so in blocks of 256; None where that is not looked at. `product` is how the engine's
    ternary kernels take a tensor of a ternary type (patches/native/ternary/buffer.cpp).
    """

    name: str
    type: str
    shape: tuple[int, ...]
    n_bytes: int
    bpw: float
    ternary: bool | None
    scales: Scales | None
    product: Product | None


@dataclass(frozen=True, slots=True)
class TensorTable:
    """All tensors, in file order, and the bytes of embeddings (with the output head) and of all others."""

    tensors: tuple[Tensor, ...]
    embedding_bytes: int
    other_bytes: int


def tensor_table(gguf: GGUFFile) -> TensorTable:
    """Describe every tensor of a file; CorruptFile when a scale is not finite."""
    tensors = tuple(_describe(gguf, info) for info in gguf.tensors.values())
    embedding = sum(tensor.n_bytes for tensor in tensors if tensor.name.removesuffix(".weight") in EMBEDDINGS)
    return TensorTable(tensors, embedding, sum(tensor.n_bytes for tensor in tensors) - embedding)


def _describe(gguf: GGUFFile, info: TensorInfo) -> Tensor:
    scales = _ternary_scales(gguf, info) if info.type.ternary else None
    ternary = True if info.type.ternary else _looks_ternary(gguf, info)
    gguf.release(info)
    bpw = 8 * info.nbytes / info.n_params
    summary, product = (None, None) if scales is None else (_summary(scales), _product(info, scales))
    return Tensor(info.name, info.type.name, info.shape, info.nbytes, bpw, ternary, summary, product)


def _ternary_scales(gguf: GGUFFile, info: TensorInfo) -> npt.NDArray[np.floating]:
    """Scales [rows, blocks of a row]; one of an I2_S tensor."""
    data = gguf.tensor_bytes(info)
    if info.type.name == "I2_S":
        return np.array([[i2_s_scale(data, name=info.name)]])
    layout = TQ1_0_BLOCK if info.type.name == "TQ1_0" else TQ2_0_BLOCK
    scales = block_scales(data.reshape(-1, info.type.block_bytes), layout, name=info.name)
    return scales.reshape(-1, info.shape[0] // info.type.block_size)


def _product(info: TensorInfo, scales: npt.NDArray[np.floating]) -> Product:
    if info.shape[0] > MAX_COLUMNS or sum(n > 1 for n in info.shape[1:]) > 1:
        return "upstream"
    # Blocks of zeros go with any scale.
    row = scales.max(axis=1, keepdims=True, where=scales != 0, initial=-np.inf)
    if not ((scales == row) | (scales == 0)).all():
        return "upstream"
    return "token" if len(np.unique(row[np.isfinite(row)])) <= 1 else "segment"


def _summary(scales: npt.NDArray[np.floating]) -> Scales:
    """Blocks of zeros, whose scale ggml stores as 0, count only where there is nothing else."""
    magnitudes = np.unique(np.abs(scales.astype(np.float64)))
    used = magnitudes[magnitudes != 0] if magnitudes.any() else magnitudes
    return Scales(len(used), float(used[0]), float(used[-1]))


def _looks_ternary(gguf: GGUFFile, info: TensorInfo) -> bool | None:
    matrix = sum(n > 1 for n in info.shape) > 1
    if not matrix or info.type.name not in ("F32", "F16", "BF16") or info.shape[0] % _BLOCK:
        return None
    data = gguf.tensor_bytes(info)[: _SAMPLE * info.type.block_bytes]
    # The sign is one bit of all three; what is left of a number is its magnitude.
    unsigned = {"F32": (np.uint32, 0x7FFFFFFF), "F16": (np.uint16, 0x7FFF), "BF16": (np.uint16, 0x7FFF)}
    word, mask = unsigned[info.type.name]
    magnitudes = (data.view(word) & word(mask)).reshape(-1, _BLOCK)
    return bool(((magnitudes == 0) | (magnitudes == magnitudes.max(axis=1, keepdims=True))).all())
