"""Transcodes a tensor from one ternary or binary type to another without changing a weight, or raises LossyTranscode.

I2_S has one float32 scale per tensor; the other types have one fp16 scale for every 64, 128 or 256 weights of a row.
A tensor may thus have a scale that fp16 cannot hold, several scales where the target holds one, or codes that the
target lacks (+2 of Q2_0, 0 in Q1_0). All are detected before the first byte is produced.

    slabs = transcode(data, (2560, 6912), I2_S, TQ2_0, name="blk.0.ffn_up.weight")
    for slab in slabs:
        writer.write(slab)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edgellm.errors import LossyTranscode
from edgellm.formats.quant_types import QuantType, named_type
from edgellm.formats.ternary import (
    BLOCK_CODECS,
    TQ2_0_BLOCK,
    Bytes,
    Codes,
    Halves,
    block_scales,
    has_code_3,
    i2_s_scale,
    i2_s_tail,
    pack_i2_s,
    refuse_code_3,
    unpack_i2_s,
)

I2_S, TQ1_0, TQ2_0 = named_type("I2_S"), named_type("TQ1_0"), named_type("TQ2_0")
Q2_0, Q2_0_G128, Q1_0 = named_type("Q2_0"), named_type("Q2_0_G128"), named_type("Q1_0")

SLAB_WEIGHTS = 1 << 20  # 1 MiB of codes stays in L2, which is twice as fast as slabs of 4 MiB

# Half a unit in the last place of a normal fp16 number, relative to its value.
_FP16_ROUNDING = 2.0**-11

# The four bit pairs of a byte in reverse order: the only difference between the codes of I2_S and TQ2_0.
_REVERSED = np.array([b >> 6 | b >> 2 & 0x0C | b << 2 & 0x30 | b << 6 & 0xC0 for b in range(256)], np.uint8)
_FOUR_ZERO_WEIGHTS = 0b01010101


def transcode(
    tensor: Bytes,
    shape: Sequence[int],
    source: QuantType,
    target: QuantType,
    *,
    name: str,
    round_scale: bool = False,
) -> Iterator[Bytes]:
    """Return the bytes of a ternary or binary tensor in another such type, as slabs of whole rows.

    `tensor` holds all bytes of the tensor; `shape` is in ne order. Raises LossyTranscode at once, not while
    iterating, when the target cannot hold the weights exactly. `round_scale` allows a float32 scale to be
    rounded to fp16 (relative error at most 2**-11). Raises CorruptFile for invalid codes and scales.
    """
    if not target.fits(shape):
        why = f"its rows of {shape[0]} are not a multiple of {target}'s block of {target.block_size}"
        raise _lossy(name, target, why)
    rows = tensor[: len(tensor) - source.tail_bytes].reshape(-1, shape[0] // source.block_size * source.block_bytes)
    if source is target:
        return _same(rows, shape[0], source, i2_s_tail(i2_s_scale(tensor, name=name)) if source is I2_S else b"", name)
    if source is I2_S:
        d = half_scales(i2_s_scale(tensor, name=name), name=name, round_scale=round_scale)
        _require_codes(rows, shape[0], source, target, name)
        return _from_i2_s(rows, shape[0], target, d, name)
    _require_codes(rows, shape[0], source, target, name)
    if target is I2_S:
        return _to_i2_s(rows, shape[0], source, _only_scale(rows, source, name), name)
    _regrouped(block_scales(rows, BLOCK_CODECS[source.name].layout, name=name), source, target, name)
    return _between_blocks(rows, shape[0], source, target, name)


def half_scales(scales: npt.ArrayLike, *, name: str, round_scale: bool = False) -> Halves:
    """Return float32 scales as fp16; LossyTranscode when one changes (`round_scale`: by more than 2**-11)."""
    exact = np.asarray(scales, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        halves: Halves = np.asarray(exact.astype(np.float16))
        error = np.abs(halves.astype(np.float64) - exact)
    wrong = ~(error <= (_FP16_ROUNDING * np.abs(exact) if round_scale else 0))  # true of NaN as well
    if wrong.any():
        first = int(np.argmax(wrong))
        why = f"its scale {exact.flat[first]!s} would become {halves.flat[first]!s} in fp16"
        raise LossyTranscode(f"tensor {name} cannot have fp16 scales without loss", why=why, tensor=name)
    return halves


def _lossy(name: str, target: QuantType, why: str) -> LossyTranscode:
    return LossyTranscode(f"tensor {name} cannot become {target} without loss", why=why, tensor=name, type=target.name)


def _slabs(rows: Bytes, columns: int) -> Iterator[Bytes]:
    step = max(1, SLAB_WEIGHTS // max(1, columns))
    for first in range(0, len(rows), step):
        yield rows[first : first + step]


def _same(rows: Bytes, columns: int, kind: QuantType, tail: bytes, name: str) -> Iterator[Bytes]:
    """Yield a checked copy. I2_S gets a new tail: the old padding may be its writer's uninitialised memory."""
    for slab in _slabs(rows, columns):
        if kind is I2_S:
            refuse_code_3(slab, name=name)
        elif kind is TQ2_0:
            refuse_code_3(np.ascontiguousarray(slab.view(TQ2_0_BLOCK)["qs"]), name=name)
        yield slab
    if tail:
        yield np.frombuffer(tail, np.uint8)


def _from_i2_s(rows: Bytes, columns: int, target: QuantType, d: Halves, name: str) -> Iterator[Bytes]:
    for slab in _slabs(rows, columns):
        if target is TQ2_0:
            refuse_code_3(slab, name=name)
            blocks = np.empty((len(slab), columns // 256), TQ2_0_BLOCK)
            blocks["qs"] = _REVERSED[slab].reshape(*blocks.shape, 64)
            blocks["d"] = d
            yield blocks.view(np.uint8)
        else:
            yield BLOCK_CODECS[target.name].pack(unpack_i2_s(slab, name=name), d)


def _to_i2_s(rows: Bytes, columns: int, source: QuantType, scale: float, name: str) -> Iterator[Bytes]:
    """Yield I2_S bytes. A block with scale 0 becomes zeros, whatever its codes, if other blocks have a scale."""
    for slab in _slabs(rows, columns):
        if source is TQ2_0:
            blocks = slab.view(TQ2_0_BLOCK)
            qs = _REVERSED[blocks["qs"]]
            refuse_code_3(qs, name=name)
            if scale:
                qs[blocks["d"] == 0] = _FOUR_ZERO_WEIGHTS
            yield qs.reshape(len(slab), -1)
        else:
            codes, d = BLOCK_CODECS[source.name].unpack(slab, name=name)
            if scale:
                codes.reshape(*d.shape, -1)[d == 0] = 0
            yield pack_i2_s(codes)
    yield np.frombuffer(i2_s_tail(scale), np.uint8)


def _between_blocks(rows: Bytes, columns: int, source: QuantType, target: QuantType, name: str) -> Iterator[Bytes]:
    for slab in _slabs(rows, columns):
        codes, d = BLOCK_CODECS[source.name].unpack(slab, name=name)
        if target.block_size > source.block_size:
            codes.reshape(*d.shape, -1)[d == 0] = 0
        yield BLOCK_CODECS[target.name].pack(codes, _regrouped(d, source, target, name))


def _regrouped(d: Halves, source: QuantType, target: QuantType, name: str) -> Halves:
    """Return the scales of the target's blocks, [rows, blocks]. A block with scale 0 goes with any other."""
    if target.block_size <= source.block_size:
        return np.repeat(d, source.block_size // target.block_size, axis=1)
    groups = d.reshape(len(d), -1, target.block_size // source.block_size)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=-1)[..., None], axis=-1)
    if not ((groups == largest) | (groups == 0)).all():
        why = f"it has several scales within {target.block_size} weights, for which {target} holds one"
        raise _lossy(name, target, why)
    return largest[..., 0]


def _require_codes(rows: Bytes, columns: int, source: QuantType, target: QuantType, name: str) -> None:
    """Raise LossyTranscode when a code of the source has no counterpart in the target."""
    doubled = source in (Q2_0, Q2_0_G128) and target not in (Q2_0, Q2_0_G128)
    if not doubled and target is not Q1_0:
        return
    for slab in _slabs(rows, columns):
        # Unpacking takes many times longer than a look at the bit pairs, and nearly no file has the code.
        if target is not Q1_0 and not has_code_3(slab.view(BLOCK_CODECS[source.name].layout)["qs"]):
            continue
        codes = _used_codes(slab, source, name)
        if doubled and (codes == 2).any():
            raise _lossy(name, target, f"some of its weights are twice the scale, which only {Q2_0} holds")
        if target is Q1_0 and not codes.all():
            raise _lossy(name, target, "some of its weights are 0, which one bit cannot say")


def _used_codes(slab: Bytes, source: QuantType, name: str) -> Codes:
    """Return the codes of all blocks with a scale; without one a code means nothing."""
    if source is I2_S:
        return unpack_i2_s(slab, name=name)
    codes, d = BLOCK_CODECS[source.name].unpack(slab, name=name)
    used: Codes = codes.reshape(*d.shape, -1)[d != 0]
    return used


def _only_scale(rows: Bytes, source: QuantType, name: str) -> float:
    """Return the scale that all blocks share, ignoring blocks of zeros, whose scale ggml stores as 0."""
    different = np.unique(block_scales(rows, BLOCK_CODECS[source.name].layout, name=name))
    different = different[different != 0]
    if len(different) > 1:
        why = f"it has {len(different)} different scales, but {I2_S} holds one per tensor"
        raise _lossy(name, I2_S, why)
    return float(different[0]) if len(different) else 0.0
