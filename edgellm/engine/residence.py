"""Predicts where a weight matrix is after loading: in the mapped file, or in a copy repacked for the kernels.

    copied_nbytes("Q4_K", (3072, 9216), kernels(detect()))  ->  16367616
    copied_nbytes("Q5_1", (3072, 9216), kernels(detect()))  ->  None: it is used in place

The rules follow the engine's extra buffer types, in the engine's order (ours, ggml-cpu/amx/amx.cpp,
`ggml_repack_get_optimal_repack_type` in ggml-cpu/repack.cpp). A copied matrix counts once, because the engine
releases the file's pages while it copies (patches/native/mapping.h). A wrong rule only makes an estimate inaccurate.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from enum import Enum

from edgellm.formats.quant_types import named_type, tensor_nbytes
from edgellm.machine.cpu import Cpu

# The types that our own kernels (patches/native) repack with one float32 per row, 2 bits per weight ...
_BY_ROW = frozenset({"I2_S", "TQ1_0", "TQ2_0"})
# ... or with one fp16 for so many columns: bits per weight, columns. TQ types take either, as their scales allow.
_BY_GROUP = {"TQ1_0": (2, 256), "TQ2_0": (2, 256), "Q2_0": (2, 64), "Q2_0_G128": (2, 128), "Q1_0": (1, 128)}
TERNARY = _BY_ROW | _BY_GROUP.keys()
# Where the CPU has AVX2: bytes of a row in memory for so many columns.
_BY_BLOCK = {
    "Q4_0": (18, 32), "Q4_1": (20, 32), "Q8_0": (34, 32), "Q4_K": (148, 256), "Q5_K": (180, 256), "Q6_K": (212, 256),
}  # fmt: skip
# An embedding of these types that is also the head is not copied.
_HEADS_IN_PLACE = frozenset({"Q6_K", "Q8_0"})
_PANEL_ROWS = 16
_COLUMN_MULTIPLE = 64

# Bytes that AMX adds to each block: compensation for unsigned products, or scales widened to whole bytes.
_AMX_EXTRA = {"F16": 0, "Q4_0": 0, "Q4_1": 0, "Q8_0": 4, "Q4_K": 4, "Q5_K": 4, "Q6_K": 0, "IQ4_XS": 2}
_AVX2 = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
_NEON = frozenset({"Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4", "Q8_0", "Q1_0"})
# The repacked rows are interleaved by 8, or by 4 where NEON has these types.
_BY_FOUR = frozenset({"Q4_0", "IQ4_NL", "MXFP4", "Q8_0", "Q1_0"})
_GATHERED = ("token_embd.weight", "position_embd.weight", "token_types.weight")
_HEAD = "output.weight"


class Kernels(Enum):
    """The families of matrix kernels that decide what is copied."""

    AMX = "amx"
    AVX512 = "avx512"
    AVX2 = "avx2"
    NEON = "neon"
    PLAIN = "plain"


def kernels(cpu: Cpu) -> Kernels:
    """Return the kernels that an engine compiled for this CPU uses."""
    features = set(cpu.instruction_sets)
    if {"amx_int8", "avx512_vnni"} <= features and sys.platform == "linux":
        return Kernels.AMX
    if "avx512f" in features:
        return Kernels.AVX512
    if "avx2" in features:
        return Kernels.AVX2
    # Every Apple CPU has the dot product instructions, but does not list its features.
    return Kernels.NEON if "asimddp" in features or cpu.machine == "arm64" else Kernels.PLAIN


def is_packable(shape: Sequence[int]) -> bool:
    """Whether our kernels can pack a tensor of this shape (ne order): a matrix, or experts of whole panels."""
    experts = math.prod(shape[2:])
    return experts == 1 or (experts == shape[2] and shape[1] % _PANEL_ROWS == 0)


def copied_nbytes(kind: str, shape: Sequence[int], use: Kernels, *, gathered: bool = False) -> int | None:
    """Return the size in bytes of a matrix's copy (ne order), or None when it is used in place.

    `gathered` is for an embedding that is also the head: in Q6_K and Q8_0 our kernels do not copy it.
    """
    columns, rows = shape[0], shape[1] if len(shape) > 1 else 1
    if len(shape) not in (2, 3) or rows == 1:
        return None
    by_block = kind in _BY_BLOCK and columns % _COLUMN_MULTIPLE == 0 and use not in (Kernels.NEON, Kernels.PLAIN)
    by_block = by_block and not (gathered and kind in _HEADS_IN_PLACE)
    if (kind in TERNARY or by_block) and is_packable(shape):
        experts = shape[2] if len(shape) == 3 else 1
        padded = -(-rows // _PANEL_ROWS) * _PANEL_ROWS * experts
        # The buffer also has room for the original tensor (patches/native/ternary/buffer.cpp).
        return max(padded * _packed_row_nbytes(kind, columns), tensor_nbytes(named_type(kind), shape))
    nbytes = tensor_nbytes(named_type(kind), shape)
    if use is Kernels.AMX and kind in _AMX_EXTRA and len(shape) == 2 and rows % 32 == 0 and columns % 16 == 0:
        return nbytes + _AMX_EXTRA[kind] * (columns // named_type(kind).block_size) * rows
    if use is Kernels.NEON:
        return nbytes if kind in _NEON and rows % (4 if kind in _BY_FOUR else 8) == 0 else None
    wide = use in (Kernels.AMX, Kernels.AVX512) and kind == "Q2_K"
    return nbytes if use is not Kernels.PLAIN and rows % 8 == 0 and (kind in _AVX2 or wide) else None


def _packed_row_nbytes(kind: str, columns: int) -> int:
    if kind in _BY_BLOCK:
        nbytes, block = _BY_BLOCK[kind]
        return columns // block * nbytes
    by_row = columns // 4 + 4 if kind in _BY_ROW else 0
    bits, group = _BY_GROUP.get(kind, (0, columns))
    return max(by_row, columns * bits // 8 + columns // group * 2)


def multiplies(name: str, *, tied: bool) -> bool:
    """Whether a tensor is used in matrix products; an embedding is only if it is also the head."""
    if name in _GATHERED:
        return tied and name == _GATHERED[0]
    return name.endswith(".weight")


def is_tied(names: Sequence[str], architecture: str) -> bool:
    """Whether the embedding is also the head: if there is no separate head and the model predicts tokens."""
    return _HEAD not in names and "bert" not in architecture
