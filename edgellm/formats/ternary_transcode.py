"""Ternary tensors from one ternary type into another: the same weights in other bytes, or a refusal.

I2_S has one float32 scale a tensor, TQ1_0 and TQ2_0 have one fp16 scale for every 256 weights of a row. So a
tensor may have a scale that fp16 cannot hold, or more than one scale; that is found and said before the first
byte is made.

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
    TQ1_0_BLOCK,
    TQ2_0_BLOCK,
    Bytes,
    Halves,
    block_scales,
    i2_s_scale,
    i2_s_tail,
    pack_i2_s,
    pack_tq1_0,
    pack_tq2_0,
    refuse_code_3,
    unpack_i2_s,
    unpack_tq1_0,
    unpack_tq2_0,
)

I2_S, TQ1_0, TQ2_0 = named_type("I2_S"), named_type("TQ1_0"), named_type("TQ2_0")

SLAB_WEIGHTS = 1 << 20  # 1 MiB of codes: slabs that stay in L2 are twice as fast as slabs of 4 MiB

# Half a unit in the last place of an fp16 in normal range, relative.
_FP16_ROUNDING = 2.0**-11

# The four bit pairs of a byte in reverse order: all that differs between the codes of I2_S and TQ2_0.
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
    """Return the bytes of a ternary tensor in another ternary type, in slabs of whole rows.

    `tensor` holds all bytes of the tensor, `shape` is in ne order. Raises LossyTranscode at once, not while
    iterating, when the target cannot hold the weights exactly; `round_scale` permits a float32 scale to be
    rounded to fp16 (relative error at most 2**-11). Raises CorruptFile for codes and scales that cannot be.
    """
    if not target.fits(shape):
        why = f"its rows of {shape[0]} are no multiple of {target}'s block of {target.block_size}"
        raise _lossy(name, target, why)
    rows = tensor[: len(tensor) - source.tail_bytes].reshape(-1, shape[0] // source.block_size * source.block_bytes)
    if source is target:
        return _same(rows, shape[0], source, i2_s_tail(i2_s_scale(tensor, name=name)) if source is I2_S else b"", name)
    if source is I2_S:
        scale = i2_s_scale(tensor, name=name)
        return _from_i2_s(rows, shape[0], target, half_scales(scale, name=name, round_scale=round_scale), name)
    if target is I2_S:
        return _to_i2_s(rows, shape[0], source, _only_scale(rows, source, name), name)
    return _between_tq(rows, shape[0], source, name)


def half_scales(scales: npt.ArrayLike, *, name: str, round_scale: bool = False) -> Halves:
    """Return float32 scales as fp16; LossyTranscode when that changes one (`round_scale`: by more than 2**-11)."""
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
    """A copy, checked; a new tail in place of I2_S's, so that no file carries its writer's uninitialised memory on."""
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
            yield pack_tq1_0(unpack_i2_s(slab, name=name), d)


def _to_i2_s(rows: Bytes, columns: int, source: QuantType, scale: float, name: str) -> Iterator[Bytes]:
    """Blocks whose own scale is 0 among others that have one hold zeros, whatever their codes say."""
    for slab in _slabs(rows, columns):
        if source is TQ2_0:
            blocks = slab.view(TQ2_0_BLOCK)
            qs = _REVERSED[blocks["qs"]]
            refuse_code_3(qs, name=name)
            if scale:
                qs[blocks["d"] == 0] = _FOUR_ZERO_WEIGHTS
            yield qs.reshape(len(slab), -1)
        else:
            codes, d = unpack_tq1_0(slab, name=name)
            if scale:
                codes.reshape(*d.shape, -1)[d == 0] = 0
            yield pack_i2_s(codes)
    yield np.frombuffer(i2_s_tail(scale), np.uint8)


def _between_tq(rows: Bytes, columns: int, source: QuantType, name: str) -> Iterator[Bytes]:
    for slab in _slabs(rows, columns):
        if source is TQ1_0:
            yield pack_tq2_0(*unpack_tq1_0(slab, name=name))
        else:
            yield pack_tq1_0(*unpack_tq2_0(slab, name=name))


def _only_scale(rows: Bytes, source: QuantType, name: str) -> float:
    """Return the one scale that all blocks share; blocks of zeros, whose scale ggml stores as 0, have none."""
    layout = TQ1_0_BLOCK if source is TQ1_0 else TQ2_0_BLOCK
    different = np.unique(block_scales(rows, layout, name=name))
    different = different[different != 0]
    if len(different) > 1:
        why = f"it has {len(different)} different scales, and {I2_S} holds one a tensor"
        raise _lossy(name, I2_S, why)
    return float(different[0]) if len(different) else 0.0
