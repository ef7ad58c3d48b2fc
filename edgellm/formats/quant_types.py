"""The tensor types that a GGUF file may hold: ids, names and sizes in bytes.

Ids, names and sizes come from the pinned ggml (`enum ggml_type`), plus bitnet.cpp's I2_S under id 36, which
ggml itself has retired. All tensor sizes in edgellm are computed here.

    tensor_nbytes(named_type("I2_S"), (2560, 6912))  # 4423712
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.errors import UsageError


@dataclass(frozen=True, slots=True)
class QuantType:
    """How one tensor type stores its weights.

    A row is cut into blocks of `block_size` weights, each stored in `block_bytes` bytes; `tail_bytes` follow
    once per tensor. `ternary` marks types whose weights are -scale, 0 or +scale, and `binary` those whose weights
    are -scale or +scale. `id` is the one in files: Q2_0 and Q2_0_G128 share theirs.
    """

    id: int
    name: str
    block_size: int
    block_bytes: int
    tail_bytes: int = 0
    ternary: bool = False
    binary: bool = False

    @property
    def one_magnitude(self) -> bool:
        """Whether a block holds one magnitude, so that only models trained so can have the type."""
        return self.ternary or self.binary

    @property
    def bpw(self) -> float:
        """Bits per weight, without the tail of the tensor."""
        return 8 * self.block_bytes / self.block_size

    @property
    def is_quantized(self) -> bool:
        """Whether weights share a block, unlike plain floats and integers."""
        return self.block_size > 1

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether the rows of a tensor of this shape (ne order: row length first) are whole blocks."""
        row = shape[0] if shape else 1
        return row % self.block_size == 0

    def __str__(self) -> str:
        return self.name


TYPES = (
    QuantType(0, "F32", 1, 4),
    QuantType(1, "F16", 1, 2),
    QuantType(2, "Q4_0", 32, 18),
    QuantType(3, "Q4_1", 32, 20),
    QuantType(6, "Q5_0", 32, 22),
    QuantType(7, "Q5_1", 32, 24),
    QuantType(8, "Q8_0", 32, 34),
    QuantType(9, "Q8_1", 32, 36),
    QuantType(10, "Q2_K", 256, 84),
    QuantType(11, "Q3_K", 256, 110),
    QuantType(12, "Q4_K", 256, 144),
    QuantType(13, "Q5_K", 256, 176),
    QuantType(14, "Q6_K", 256, 210),
    QuantType(15, "Q8_K", 256, 292),
    QuantType(16, "IQ2_XXS", 256, 66),
    QuantType(17, "IQ2_XS", 256, 74),
    QuantType(18, "IQ3_XXS", 256, 98),
    QuantType(19, "IQ1_S", 256, 50),
    QuantType(20, "IQ4_NL", 32, 18),
    QuantType(21, "IQ3_S", 256, 110),
    QuantType(22, "IQ2_S", 256, 82),
    QuantType(23, "IQ4_XS", 256, 136),
    QuantType(24, "I8", 1, 1),
    QuantType(25, "I16", 1, 2),
    QuantType(26, "I32", 1, 4),
    QuantType(27, "I64", 1, 8),
    QuantType(28, "F64", 1, 8),
    QuantType(29, "IQ1_M", 256, 56),
    QuantType(30, "BF16", 1, 2),
    QuantType(34, "TQ1_0", 256, 54, ternary=True),
    QuantType(35, "TQ2_0", 256, 66, ternary=True),
    # The codes of the tensor, then its float32 scale and 28 bytes of padding (see ternary.py).
    QuantType(36, "I2_S", 128, 32, tail_bytes=32, ternary=True),
    QuantType(39, "MXFP4", 32, 17),
    QuantType(40, "NVFP4", 64, 36),
    QuantType(41, "Q1_0", 128, 18, binary=True),
    # Two sizes under one id: upstream's, and that of the makers of Ternary-Bonsai (see gguf_file.py).
    QuantType(42, "Q2_0", 64, 18, ternary=True),
    QuantType(42, "Q2_0_G128", 128, 34, ternary=True),
)

# Ids that still occur in the wild but that the engine cannot read; each text completes "has type 38, ...".
RETIRED_IDS = {
    4: "Q4_2, removed from ggml in 2023",
    5: "Q4_3, removed from ggml in 2023",
    31: "Q4_0_4_4, removed from ggml: use a Q4_0 file, which the engine repacks when it loads",
    32: "Q4_0_4_8, removed from ggml: use a Q4_0 file, which the engine repacks when it loads",
    33: "Q4_0_8_8, removed from ggml: use a Q4_0 file, which the engine repacks when it loads",
    37: "I8_S of bitnet.cpp, which only that program reads",
    38: "TL1 of bitnet.cpp, tuned for one ARM machine: use the model's I2_S file",
}

_BY_ID = {t.id: t for t in reversed(TYPES)}
# The makers of Ternary-Bonsai name their files so.
_ALIASES = {"Q2_0_G64": "Q2_0"}
_BY_NAME = {t.name: t for t in TYPES}


def find_type(type_id: int) -> QuantType | None:
    """Return the type with this GGUF id, upstream's where two share it; None when it is not supported."""
    return _BY_ID.get(type_id)


def find_named(name: str) -> QuantType | None:
    """Return the type with this name, ignoring case, or None when there is none."""
    return _BY_NAME.get(_ALIASES.get(name.upper(), name.upper()))


def named_type(name: str) -> QuantType:
    """Return the type with this name, ignoring case ("q4_k"); raise UsageError when there is none."""
    found = find_named(name)
    if found is None:
        close = difflib.get_close_matches(name.upper(), _BY_NAME, n=1)
        why = f"did you mean {close[0]}?" if close else f"types are {', '.join(_BY_NAME)}"
        raise UsageError(f"there is no tensor type {name!r}", why=why, type=name)
    return found


def tensor_nbytes(quant_type: QuantType, shape: Sequence[int]) -> int:
    """Return the size in bytes of a tensor of this shape (ne order), without the padding between tensors.

    Raises ValueError when a row is not a whole number of blocks: check untrusted shapes with `fits` first.
    """
    if not quant_type.fits(shape):
        raise ValueError(
            f"rows of {shape[0]} are not a multiple of {quant_type.name}'s block of {quant_type.block_size}"
        )
    return math.prod(shape) // quant_type.block_size * quant_type.block_bytes + quant_type.tail_bytes
