"""Some rows of a weight matrix, in the form a checkpoint has them, and their bytes in each GGUF type.

A checkpoint's own form is kept until the bytes are made, so that nothing is rounded on the way that the type
can hold: ternary codes go into ternary types, 4-bit codes into 4-bit types, each with its own scale.

    slab = Ternary(codes, scales)             # int8 [rows, columns], float32 [rows]
    data = slab.encode(named_type("TQ2_0"))   # uint8 [rows, bytes of a row]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.errors import UnsupportedModel
from edgellm.formats.quant_types import QuantType
from edgellm.formats.ternary import WEIGHTS_PER_BLOCK, Bytes, Codes, Halves, pack_i2_s, pack_tq1_0, pack_tq2_0

Values = npt.NDArray[np.float32]
RowOrder = npt.NDArray[np.intp]
FLOAT_TYPES = ("F32", "F16", "BF16", "Q8_0")
# Types that keep the scale of ternary weights, or its product with them, in fp16.
HALF_SCALE_TYPES = ("TQ2_0", "TQ1_0", "Q4_0", "F16")
HALF_PRECISION = 1 << 11

# Blocks of 32 weights, the smaller types of ggml. d is their scale, m their minimum.
#
#   Q8_0:  d | 32 signed bytes, weight = d q
#   Q4_0:  d | 16 bytes, byte j holds weight j in bits 3-0 and 16 + j in bits 7-4, weight = d (q - 8)
#   Q4_1:  d | m | 16 bytes as in Q4_0, weight = d q + m
_BLOCK = 32
_Q8_0 = np.dtype([("d", "<f2"), ("qs", np.int8, 32)])
_Q4_0 = np.dtype([("d", "<f2"), ("qs", np.uint8, 16)])
_Q4_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", np.uint8, 16)])


@dataclass(frozen=True, slots=True)
class Floats:
    """Plain weights, float32 [rows, columns]."""

    values: Values

    def take(self, order: RowOrder) -> Floats:
        """Return the rows in another order."""
        return Floats(self.values[order])

    def encode(self, target: QuantType) -> Bytes:
        """Return the bytes in one of FLOAT_TYPES, or in a ternary type if the weights already are ternary."""
        if target.name == "F32":
            return self.values.view(np.uint8)
        if target.name == "F16":
            return half(self.values).view(np.uint8)
        if target.name == "BF16":
            return _bfloat16(self.values).view(np.uint8)
        if target.name == "Q8_0":
            return _encode_q8_0(self.values)
        if target.ternary:
            return ternary_rows(self.values).encode(target)
        raise ValueError(f"plain weights have no numpy codec for {target}")


@dataclass(frozen=True, slots=True)
class Ternary:
    """Codes -1, 0, +1, int8 [rows, columns], and what multiplies each row, float32 [rows]."""

    codes: Codes
    scales: Values

    def take(self, order: RowOrder) -> Ternary:
        """Return the rows in another order."""
        return Ternary(self.codes[order], self.scales[order])

    def encode(self, target: QuantType) -> Bytes:
        """Return the bytes in a ternary type (of I2_S without the tail), in Q4_0, or in a type of plain weights."""
        if target.name == "I2_S":
            return pack_i2_s(self.codes)
        if target.name not in HALF_SCALE_TYPES:
            return Floats(self.codes * self.scales[:, None]).encode(target)
        d = half_scales(self.scales)[:, None]
        if target.name == "Q4_0":
            return _encode_q4((self.codes + np.int8(8)).view(np.uint8), d, None)
        if target.name in ("TQ1_0", "TQ2_0"):
            blocks = np.broadcast_to(d, (len(d), self.codes.shape[1] // WEIGHTS_PER_BLOCK))
            return (pack_tq1_0 if target.name == "TQ1_0" else pack_tq2_0)(self.codes, blocks)
        return (self.codes * d).view(np.uint8)


@dataclass(frozen=True, slots=True)
class Grouped:
    """4-bit codes 0..15, uint8 [rows, columns]; weight = scale (code - zero), both [rows, groups] along the row."""

    codes: Bytes
    scales: Halves
    zeros: Bytes

    def take(self, order: RowOrder) -> Grouped:
        """Return the rows in another order."""
        return Grouped(self.codes[order], self.scales[order], self.zeros[order])

    def encode(self, target: QuantType) -> Bytes:
        """Return the bytes in Q4_0 (every zero must be 8), in Q4_1, or in a type of plain weights."""
        if target.name == "Q4_0":
            if (self.zeros != 8).any():
                raise ValueError("Q4_0 holds no zero points")
            return _encode_q4(self.codes, self.scales, None)
        if target.name == "Q4_1":
            minima = half(-self.scales.astype(np.float32) * self.zeros)
            return _encode_q4(self.codes, self.scales, minima)
        return Floats(self.values).encode(target)

    @property
    def values(self) -> Values:
        """The weights in float32, exactly."""
        rows, columns = self.codes.shape
        groups = self.codes.reshape(rows, self.scales.shape[1], -1)
        centred = groups.astype(np.float32) - self.zeros[..., None]
        weights: Values = (centred * self.scales.astype(np.float32)[..., None]).reshape(rows, columns)
        return weights


Slab = Floats | Ternary | Grouped


def ternary_rows(values: Values) -> Ternary:
    """Return rows that are all -s, 0 or +s, with one s a row, as codes; UnsupportedModel when one is not."""
    magnitudes = np.abs(values)
    scales = magnitudes.max(axis=1)
    if not ((magnitudes == 0) | (magnitudes == scales[:, None])).all():
        why = "its weights are not ternary: a row has more than one magnitude"
        raise UnsupportedModel("a ternary type cannot hold this model", why=why, hint="--outtype f16")
    return Ternary(np.sign(values).astype(np.int8), scales)


def half_scales(scales: Values) -> Halves:
    """Return the nearest fp16 numbers; UnsupportedModel when one is so small or large that it loses its precision."""
    halves = half(scales)
    if (np.abs(halves - scales) > np.abs(scales) / HALF_PRECISION).any():
        why = f"the smallest is {float(np.abs(scales).min()):.6g}, fp16 is precise from 6.1e-5 on"
        raise UnsupportedModel("a scale does not fit into fp16", why=why, hint="--outtype bf16 or f32")
    return halves


def rounded_scales(scales: Values, target: QuantType) -> tuple[str, ...]:
    """Tell how many scales a type changes, as notes for the user; none for types that keep them in float32."""
    if target.name in HALF_SCALE_TYPES:
        kept, most = half(scales).astype(np.float32), "0.05 %"
    elif target.name == "BF16":
        kept, most = _widened(_bfloat16(scales)), "0.4 %"
    else:
        return ()
    changed = int((kept != scales).sum())
    return (f"{changed} of {scales.size} scales are rounded, by at most {most}",) if changed else ()


def half(values: Values) -> Halves:
    """Return the nearest fp16 numbers; UnsupportedModel when one is out of range."""
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        largest = float(np.abs(values).max())
        why = f"the largest has the magnitude {largest:.6g}, fp16 ends at 65504"
        raise UnsupportedModel("a weight or scale does not fit into fp16", why=why, hint="--outtype bf16, --head bf16")
    return halves


def _bfloat16(values: Values) -> npt.NDArray[np.uint16]:
    """Return the upper halves of float32 numbers, rounded to nearest, ties to even."""
    bits = values.view(np.uint32)
    rounded: npt.NDArray[np.uint16] = (bits + (0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    return rounded


def _widened(upper: npt.NDArray[np.uint16]) -> Values:
    values: Values = np.left_shift(upper, 16, dtype=np.uint32).view(np.float32)
    return values


def _encode_q8_0(values: Values) -> Bytes:
    rows, columns = values.shape
    blocks = values.reshape(rows, -1, _BLOCK)
    d = np.abs(blocks).max(axis=-1) / np.float32(127)
    inverse = np.divide(1, d, out=np.zeros_like(d), where=d != 0)
    scaled = blocks * inverse[..., None]
    encoded = np.empty((rows, columns // _BLOCK), _Q8_0)
    encoded["d"] = half(d)
    encoded["qs"] = np.trunc(scaled + np.copysign(np.float32(0.5), scaled))  # C's roundf: halves away from zero
    return encoded.view(np.uint8)


def _encode_q4(codes: Bytes, d: Halves, minima: Halves | None) -> Bytes:
    """Encode codes [rows, columns]; `d` and `minima` [rows, groups], a group being whole blocks."""
    rows, columns = codes.shape
    halves = codes.reshape(rows, columns // _BLOCK, 2, _BLOCK // 2)
    encoded = np.empty((rows, columns // _BLOCK), _Q4_0 if minima is None else _Q4_1)
    blocks_per_group = columns // _BLOCK // d.shape[1]
    encoded["qs"] = halves[:, :, 0] | halves[:, :, 1] << 4
    encoded["d"] = np.repeat(d, blocks_per_group, axis=1)
    if minima is not None:
        encoded["m"] = np.repeat(minima, blocks_per_group, axis=1)
    return encoded.view(np.uint8)
