"""Describes each tensor of a GGUF file: type, shape, bytes, and the scales of ternary weights.

table = tensor_table(gguf)
table.embedding_bytes, table.tensors[0].scales
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgellm.engine.residence import is_packable
from edgellm.formats.gguf_file import GGUFFile, TensorInfo
from edgellm.formats.ternary import BLOCK_CODECS, block_scales, i2_s_scale

# Tables of vectors, read row by row, and the output head, read once for all tokens of a batch.
EMBEDDINGS = ("token_embd", "output", "per_layer_token_embd", "position_embd", "token_types")
_BLOCK = 256
_SAMPLE = 1 << 16
# Our kernels quantize activations per token, per 256 columns, or per 32 where rows have blocks with different scales.
# Upstream's product is used for shapes that our kernels do not support.
Product = Literal["token", "segment", "group", "upstream"]
_ALWAYS_BY_GROUP = ("Q2_0", "Q2_0_G128", "Q1_0")
MAX_COLUMNS = 1 << 16


@dataclass(frozen=True, slots=True)
class Scales:
    """The distinct scales of a ternary or binary tensor: their number, and the smallest and the largest magnitude."""

    count: int
    smallest: float
    largest: float


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: `shape` in ne order.

    `ternary` says whether its weights are all -scale, 0 or +scale. That is true for ternary types, and for plain
    floats when it holds for the first 65,536 weights in blocks of 256; None for types that are not checked. `product`
    is how the engine's ternary kernels multiply by the tensor (patches/native/ternary/buffer.cpp).
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
    """All tensors in file order, and the bytes of embeddings (including the output head) and of all others."""

    tensors: tuple[Tensor, ...]
    embedding_bytes: int
    other_bytes: int


def tensor_table(gguf: GGUFFile) -> TensorTable:
    """Describe every tensor of a file; CorruptFile when a scale is not finite."""
    tensors = tuple(_describe(gguf, info) for info in gguf.tensors.values())
    embedding = sum(tensor.n_bytes for tensor in tensors if tensor.name.removesuffix(".weight") in EMBEDDINGS)
    return TensorTable(tensors, embedding, sum(tensor.n_bytes for tensor in tensors) - embedding)


def _describe(gguf: GGUFFile, info: TensorInfo) -> Tensor:
    scales = _ternary_scales(gguf, info) if info.type.one_magnitude else None
    ternary = True if info.type.one_magnitude else _looks_ternary(gguf, info)
    gguf.release(info)
    bpw = 8 * info.nbytes / info.n_params
    summary, product = (None, None) if scales is None else (_summary(scales), _product(info, scales))
    return Tensor(info.name, info.type.name, info.shape, info.nbytes, bpw, ternary, summary, product)


def _ternary_scales(gguf: GGUFFile, info: TensorInfo) -> npt.NDArray[np.floating]:
    """Return the scales [rows, blocks per row], or the single scale of an I2_S tensor."""
    data = gguf.tensor_bytes(info)
    if info.type.name == "I2_S":
        return np.array([[i2_s_scale(data, name=info.name)]])
    layout = BLOCK_CODECS[info.type.name].layout
    scales = block_scales(data.reshape(-1, info.type.block_bytes), layout, name=info.name)
    return scales.reshape(-1, info.shape[0] // info.type.block_size)


def _product(info: TensorInfo, scales: npt.NDArray[np.floating]) -> Product:
    if info.shape[0] > MAX_COLUMNS or not is_packable(info.shape):
        return "upstream"
    if info.type.name in _ALWAYS_BY_GROUP:
        return "group"
    # A block of zeros is compatible with any scale.
    row = scales.max(axis=1, keepdims=True, where=scales != 0, initial=-np.inf)
    if not ((scales == row) | (scales == 0)).all():
        return "group"
    return "token" if len(np.unique(row[np.isfinite(row)])) <= 1 else "segment"


def _summary(scales: npt.NDArray[np.floating]) -> Scales:
    """Summarise the scales; blocks of zeros, whose scale ggml stores as 0, count only when there are no others."""
    magnitudes = np.unique(np.abs(scales.astype(np.float64)))
    used = magnitudes[magnitudes != 0] if magnitudes.any() else magnitudes
    return Scales(len(used), float(used[0]), float(used[-1]))


def _looks_ternary(gguf: GGUFFile, info: TensorInfo) -> bool | None:
    matrix = sum(n > 1 for n in info.shape) > 1
    if not matrix or info.type.name not in ("F32", "F16", "BF16") or info.shape[0] % _BLOCK:
        return None
    data = gguf.tensor_bytes(info)[: _SAMPLE * info.type.block_bytes]
    # All three types have one sign bit; the remaining bits are the magnitude.
    unsigned = {"F32": (np.uint32, 0x7FFFFFFF), "F16": (np.uint16, 0x7FFF), "BF16": (np.uint16, 0x7FFF)}
    word, mask = unsigned[info.type.name]
    magnitudes = (data.view(word) & word(mask)).reshape(-1, _BLOCK)
    return bool(((magnitudes == 0) | (magnitudes == magnitudes.max(axis=1, keepdims=True))).all())
