"""Slabs: some rows of a weight matrix in the checkpoint's own form, and their encoding in each GGUF type.

A slab keeps the checkpoint's form until it is encoded, so that nothing is rounded that the type can hold:
ternary codes go to ternary types and 4-bit codes to 4-bit types, each with its own scale.

    slab = Ternary(codes, scales)             # int8 [rows, columns], float32 [rows]
    data = slab.encode(named_type("TQ2_0"))   # uint8 [rows, bytes of a row]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgellm.errors import UnsupportedModel
from edgellm.formats.quant_types import QuantType
from edgellm.formats.ternary import BLOCK_CODECS, Bytes, Codes, Halves, pack_i2_s

Values = npt.NDArray[np.float32]
RowOrder = npt.NDArray[np.intp]
FLOAT_TYPES = ("F32", "F16", "BF16", "Q8_0")
# Types that store the scale of ternary weights, or weights times scale, in fp16.
HALF_SCALE_TYPES = ("TQ2_0", "TQ1_0", "Q2_0", "Q2_0_G128", "Q4_0", "F16")
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
        """Return the slab with its rows in the given order."""
        return Floats(self.values[order])

    def encode(self, target: QuantType) -> Bytes:
        """Return the bytes in one of FLOAT_TYPES, or in a type of one magnitude if the weights are already so."""
        if target.name == "F32":
            return self.values.view(np.uint8)
        if target.name == "F16":
            return half(self.values).view(np.uint8)
        if target.name == "BF16":
            return _bfloat16(self.values).view(np.uint8)
        if target.name == "Q8_0":
            return _encode_q8_0(self.values)
        if target.name in BLOCK_CODECS:
            return _encode_blocks(self.values, target)
        raise ValueError(f"plain weights have no numpy codec for {target}")


@dataclass(frozen=True, slots=True)
class Ternary:
    """Codes -1, 0, +1, int8 [rows, columns], and the scale of each row, float32 [rows]."""

    codes: Codes
    scales: Values

    def take(self, order: RowOrder) -> Ternary:
        """Return the slab with its rows in the given order."""
        return Ternary(self.codes[order], self.scales[order])

    def encode(self, target: QuantType) -> Bytes:
        """Return the bytes in a ternary type (I2_S without its tail), in Q4_0, or in a type of plain weights."""
        if target.name == "I2_S":
            return pack_i2_s(self.codes)
        if target.name not in HALF_SCALE_TYPES:
            return Floats(self.codes * self.scales[:, None]).encode(target)
        d = half_scales(self.scales)[:, None]
        if target.name == "Q4_0":
            return encode_q4((self.codes + np.int8(8)).view(np.uint8), d, None)
        if target.name in BLOCK_CODECS:
            return BLOCK_CODECS[target.name].pack(self.codes, d)
        return (self.codes * d).view(np.uint8)


@dataclass(frozen=True, slots=True)
class Latent:
    """Weights as training has them, float32 [rows, columns], and the scale of each row, float32 [rows].

    The model computes with codes, round(clamp(values * inverse, -1, 1)), times the scales.
    """

    values: Values
    scales: Values
    inverse: np.float32

    def take(self, order: RowOrder) -> Latent:
        """Return the slab with its rows in the given order."""
        return Latent(self.values[order], self.scales[order], self.inverse)

    @property
    def ternary(self) -> Ternary:
        """What the model computes with."""
        return Ternary(np.clip(np.rint(self.values * self.inverse), -1, 1).astype(np.int8), self.scales)

    def encode(self, target: QuantType) -> Bytes:
        """Return the bytes of the codes and scales, as `Ternary` does."""
        return self.ternary.encode(target)


@dataclass(frozen=True, slots=True)
class Grouped:
    """4-bit codes 0..15, uint8 [rows, columns]; weight = scale (code - zero), with scale and zero [rows, groups]."""

    codes: Bytes
    scales: Halves
    zeros: Bytes

    def take(self, order: RowOrder) -> Grouped:
        """Return the slab with its rows in the given order."""
        return Grouped(self.codes[order], self.scales[order], self.zeros[order])

    def encode(self, target: QuantType) -> Bytes:
        """Return the bytes in Q4_0 (every zero must be 8), in Q4_1, or in a type of plain weights."""
        if target.name == "Q4_0":
            if (self.zeros != 8).any():
                raise ValueError("Q4_0 cannot hold zero points")
            return encode_q4(self.codes, self.scales, None)
        if target.name == "Q4_1":
            minima = half(-self.scales.astype(np.float32) * self.zeros)
            return encode_q4(self.codes, self.scales, minima)
        return Floats(self.values).encode(target)

    @property
    def values(self) -> Values:
        """The weights in float32, exactly."""
        rows, columns = self.codes.shape
        groups = self.codes.reshape(rows, self.scales.shape[1], -1)
        centred = groups.astype(np.float32) - self.zeros[..., None]
        weights: Values = (centred * self.scales.astype(np.float32)[..., None]).reshape(rows, columns)
        return weights


Slab = Floats | Ternary | Latent | Grouped


def block_magnitudes(values: Values, target: QuantType) -> Values:
    """Return the one magnitude of each block of a type, float32 [rows, blocks]; UnsupportedModel if one has several."""
    magnitudes = np.abs(values).reshape(len(values), -1, target.block_size)
    scales: Values = magnitudes.max(axis=-1)
    allowed = magnitudes == scales[..., None]
    if target.ternary:
        allowed |= magnitudes == 0
    if not allowed.all():
        kind = "ternary" if target.ternary else "binary"
        why = f"its weights are not {kind}: {target.block_size} of them have more than one magnitude"
        raise UnsupportedModel(f"{target} cannot hold this model", why=why, hint="--outtype f16, --head f16")
    return scales


def holds(target: QuantType, values: Values) -> bool:
    """Whether a type of one magnitude a block holds these weights, apart from the precision of their scales."""
    if not target.fits((values.shape[1],)):
        return False
    try:
        block_magnitudes(values, target)
    except UnsupportedModel:
        return False
    return True


def _encode_blocks(values: Values, target: QuantType) -> Bytes:
    scales = block_magnitudes(values, target)
    with np.errstate(over="ignore"):
        d: Halves = scales.astype(np.float16)
    if (d != scales).any():
        worst = float(scales[d != scales].flat[0])
        why = f"fp16 cannot hold the scale {worst:.6g} exactly"
        raise UnsupportedModel(f"{target} would change the weights", why=why, hint="--outtype bf16 or f32")
    return BLOCK_CODECS[target.name].pack(np.sign(values).astype(np.int8), d)


def half_scales(scales: Values) -> Halves:
    """Return the nearest fp16 numbers; UnsupportedModel when one is too small or too large to keep its precision."""
    halves = half(scales)
    if (np.abs(halves - scales) > np.abs(scales) / HALF_PRECISION).any():
        why = f"the smallest is {float(np.abs(scales).min()):.6g}; fp16 loses precision below 6.1e-5"
        raise UnsupportedModel("a scale does not fit into fp16", why=why, hint="--outtype bf16 or f32")
    return halves


def rounded_scales(scales: Values, target: QuantType) -> tuple[str, ...]:
    """Return a note on how many scales a type rounds; no note for types that store them in float32."""
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
        why = f"the largest magnitude is {largest:.6g}; fp16 ends at 65504"
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


def encode_q4(codes: Bytes, d: Halves, minima: Halves | None) -> Bytes:
    """Encode codes [rows, columns] with `d` and `minima` [rows, groups]; a group is one or more whole blocks."""
    rows, columns = codes.shape
    halves = codes.reshape(rows, columns // _BLOCK, 2, _BLOCK // 2)
    encoded = np.empty((rows, columns // _BLOCK), _Q4_0 if minima is None else _Q4_1)
    blocks_per_group = columns // _BLOCK // d.shape[1]
    encoded["qs"] = halves[:, :, 0] | halves[:, :, 1] << 4
    encoded["d"] = np.repeat(d, blocks_per_group, axis=1)
    if minima is not None:
        encoded["m"] = np.repeat(minima, blocks_per_group, axis=1)
    return encoded.view(np.uint8)
