"""Where a weight matrix lies once a model is loaded: in the mapped file, or in a copy that the kernels want.

    copied_nbytes("Q4_K", (3072, 9216), kernels(detect()))  ->  15925248
    copied_nbytes("Q4_1", (3072, 9216), kernels(detect()))  ->  None: it is used as it lies in the file

The rules are those of the engine's extra buffer types, asked in the engine's order (ours, ggml-cpu/amx/amx.cpp,
`ggml_repack_get_optimal_repack_type` in ggml-cpu/repack.cpp). What is copied counts once: the engine gives the
file's pages back as the copies are made (patches/native/mapping.h). A rule that is wrong costs an estimate its
accuracy, nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import Enum

from edgellm.formats.quant_types import named_type, tensor_nbytes
from edgellm.machine.cpu import Cpu

# The types that our own kernels (patches/native) repack at 2 bits a weight and a float32 a row.
TERNARY = frozenset({"I2_S", "TQ1_0", "TQ2_0"})
_PANEL_ROWS = 16

# Bytes that AMX adds to a block: the compensation of unsigned products, or scales widened to whole bytes.
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
    """The kernels that the engine compiled for this CPU uses."""
    features = set(cpu.instruction_sets)
    if {"amx_int8", "avx512_vnni"} <= features and sys.platform == "linux":
        return Kernels.AMX
    if "avx512f" in features:
        return Kernels.AVX512
    if "avx2" in features:
        return Kernels.AVX2
    # Every Apple CPU has the dot product; its features are not listed.
    return Kernels.NEON if "asimddp" in features or cpu.machine == "arm64" else Kernels.PLAIN


def copied_nbytes(kind: str, shape: Sequence[int], use: Kernels) -> int | None:
    """The bytes of the copy of a matrix (ne order), or None when it is used as it lies in the file."""
    columns, rows = shape[0], shape[1] if len(shape) > 1 else 1
    if len(shape) not in (2, 3) or rows == 1:
        return None
    if kind in TERNARY and len(shape) == 2:
        padded = -(-rows // _PANEL_ROWS) * _PANEL_ROWS
        # The buffer has room for the tensor as it is, which some rows need (patches/native/ternary/buffer.cpp).
        return max(padded * (columns // 4 + 4), tensor_nbytes(named_type(kind), shape))
    nbytes = tensor_nbytes(named_type(kind), shape)
    if use is Kernels.AMX and kind in _AMX_EXTRA and len(shape) == 2 and rows % 32 == 0 and columns % 16 == 0:
        return nbytes + _AMX_EXTRA[kind] * (columns // named_type(kind).block_size) * rows
    if use is Kernels.NEON:
        return nbytes if kind in _NEON and rows % (4 if kind in _BY_FOUR else 8) == 0 else None
    wide = use in (Kernels.AMX, Kernels.AVX512) and kind == "Q2_K"
    return nbytes if use is not Kernels.PLAIN and rows % 8 == 0 and (kind in _AVX2 or wide) else None


def multiplies(name: str, *, tied: bool) -> bool:
    """Whether a tensor is a factor of matrix products; an embedding is one where it is the head as well."""
    if name in _GATHERED:
        return tied and name == _GATHERED[0]
    return name.endswith(".weight")


def is_tied(names: Sequence[str], architecture: str) -> bool:
    """Whether the embedding is the head as well: where there is none, and tokens are predicted at all."""
    return _HEAD not in names and "bert" not in architecture
