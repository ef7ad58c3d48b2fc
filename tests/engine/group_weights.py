"""Random weights with a scale for each row and group of columns, as the bytes of each type and as numpy products.

weights = GroupWeights(Q2_0, rows=32, columns=256)
weights.data(), weights.times(x), weights.floats()
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgellm.formats.ternary import pack_tq1_0, pack_tq2_0
from tests.engine.ggml_graph import Floats

SEGMENT = 32  # columns of activations that share a scale


class GroupType(NamedTuple):
    """A tensor type: its id inside the engine, the columns of a group, and the bits of a code."""

    id: int
    columns: int
    bits: int = 2


TQ1_0, TQ2_0, Q2_0_G128 = GroupType(34, 256), GroupType(35, 256), GroupType(37, 128)
Q1_0, Q2_0 = GroupType(41, 128, 1), GroupType(42, 64)
TYPES = {"TQ1_0": TQ1_0, "TQ2_0": TQ2_0, "Q2_0_G128": Q2_0_G128, "Q1_0": Q1_0, "Q2_0": Q2_0}


class GroupWeights:
    """Weights -1, 0, +1 (also +2 with `twos`, which Q2_0 allows), or -1 and +1 for Q1_0, times the scales of groups."""

    def __init__(self, type_: GroupType, rows: int, columns: int, *, seed: int = 0, twos: bool = False) -> None:
        rng = np.random.default_rng([seed, rows, columns, type_.id])
        self.type = type_
        top = 3 if twos else 2
        codes = rng.integers(-1, top, (rows, columns), np.int8)
        self.codes = codes if type_.bits == 2 else np.where(codes < 0, np.int8(-1), np.int8(1))
        self.d = rng.uniform(0.01, 2, (rows, columns // type_.columns)).astype(np.float16)

    def data(self) -> bytes:
        """The bytes of the tensor; rows of blocks, each its fp16 scale and its codes."""
        if self.type in (TQ1_0, TQ2_0):
            return (pack_tq1_0 if self.type is TQ1_0 else pack_tq2_0)(self.codes, self.d).tobytes()
        bits = self.type.bits
        stored = (self.codes + 1).astype(np.uint8) if bits == 2 else (self.codes > 0).astype(np.uint8)
        fields = stored.reshape(*self.d.shape, -1, 8 // bits) << np.arange(0, 8, bits, dtype=np.uint8)
        blocks = np.bitwise_or.reduce(fields, axis=-1)
        return np.concatenate([self.d[..., None].view(np.uint8), blocks], axis=-1).tobytes()

    def floats(self) -> Floats:
        """The weights, dequantised [rows, columns]."""
        return self.codes * np.repeat(self.d.astype(np.float32), self.type.columns, axis=1)

    def times(self, x: Floats) -> Floats:
        """The product with x [tokens, columns], operation by operation as patches/native/ternary/groups.h has it."""
        total = np.zeros((len(x), len(self.codes)), np.float32)
        for group, start in enumerate(range(0, x.shape[1], self.type.columns)):
            part = np.zeros_like(total)
            for first in range(start, start + self.type.columns, SEGMENT):
                columns = slice(first, first + SEGMENT)
                s = np.float32(127) / np.maximum(np.abs(x[:, columns]).max(axis=1, keepdims=True), np.float32(1e-5))
                q = np.clip(np.rint(x[:, columns] * s), -128, 127)
                sums = q.astype(np.float64) @ self.codes[:, columns].T.astype(np.float64)
                part = _fused(sums, np.float32(1) / s, part)
            total = _fused(part, self.d[:, group], total)
        return total


def _fused(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating], c: Floats) -> Floats:
    """Return a * b + c, rounded once or nearly so: float64 holds the product exactly."""
    return (a.astype(np.float64) * b.astype(np.float64) + c).astype(np.float32)


def activations(tokens: int, columns: int) -> Floats:
    """Values whose size differs from token to token."""
    rng = np.random.default_rng([1, tokens, columns])
    return (rng.standard_normal((tokens, columns)) * rng.uniform(0.01, 100, (tokens, 1))).astype(np.float32)
