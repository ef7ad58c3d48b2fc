"""Encodes one tensor of a GGUF file in another type, slab by slab.

for slab in encode(gguf, planned, quantizer, importance=None, force=False):
    writer.write(...)
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from edgellm.engine.quantize import Quantizer, Values
from edgellm.errors import CorruptFile, UnsupportedModel, UsageError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.quant_types import QuantType
from edgellm.formats.ternary import (
    BLOCK_CODECS,
    Bytes,
    Codes,
    i2_s_scale,
    i2_s_tail,
    pack_i2_s,
    pack_q2_0_g128,
    unpack_i2_s,
    unpack_q2_0_g128,
)
from edgellm.formats.ternary_transcode import I2_S, Q2_0, Q2_0_G128, half_scales, transcode
from edgellm.weights.quantize.plan import Action, PlannedTensor
from edgellm.weights.slabs import encode_q4, holds

SLAB_WEIGHTS = 1 << 21  # 8 MB of float32, plus a few temporaries of that size
_HALF_MAX = 65504.0


def encode(
    gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer, *, importance: Values | None = None, force: bool = False
) -> Iterator[Bytes]:
    """Return the bytes of a tensor in its planned type, in slabs.

    `importance` is float32 [experts, columns]. `force` allows losses: ternary types for weights that are not
    ternary, and rounding a ternary scale to fp16. Without it, raises UsageError for the first and LossyTranscode
    (before the first slab) for the second. Raises CorruptFile for weights that are infinite or NaN, and
    UnsupportedModel for weights that the type cannot hold.
    """
    match tensor.action:
        case Action.COPY if not tensor.source.one_magnitude:
            data = gguf.tensor_bytes(tensor.name)
            return (data[first : first + SLAB_WEIGHTS] for first in range(0, len(data), SLAB_WEIGHTS))
        case Action.COPY | Action.TRANSCODE:
            if tensor.target.name == "Q4_0":
                return _ternary_to_q4_0(gguf, tensor, round_scale=force)
            data = gguf.tensor_bytes(tensor.name)
            return transcode(data, tensor.shape, tensor.source, tensor.target, name=tensor.name, round_scale=force)
        case Action.TERNARISE:
            make = _to_i2_s if tensor.target is I2_S else _ternarise
            return make(gguf, tensor, codec, force=force)
        case _:
            return _quantize(gguf, tensor, codec, importance)


def require_transcodable(gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer) -> None:
    """Raise LossyTranscode when another ternary type cannot hold a tensor's scales."""
    encode(gguf, tensor, codec)
    gguf.release(tensor.name)


def require_ternary(gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer) -> None:
    """Raise UsageError when the first rows of a tensor are not ternary: a cheap check that is nearly always right."""
    _block_scales(next(_read(gguf, tensor, codec, limit=1 << 16)), tensor)


def _read(gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer, *, limit: int = SLAB_WEIGHTS) -> Iterator[Values]:
    """Yield the checked weights as float32 [rows, columns]; no slab crosses from one expert into the next."""
    data = gguf.tensor_bytes(tensor.name)
    for slab in _slabs(data, tensor, limit=limit):
        if tensor.source is I2_S:
            values = unpack_i2_s(slab, name=tensor.name) * np.float32(i2_s_scale(data, name=tensor.name))
        elif tensor.source is Q2_0_G128:
            values = _decode_q2_0_g128(slab, tensor.name)
        else:
            values = codec.decode(slab, tensor.source)
        _check_numbers(values, tensor)
        yield values


def _decode_q2_0_g128(slab: Bytes, name: str) -> Values:
    codes, d = unpack_q2_0_g128(slab, name=name)
    groups: Values = codes.astype(np.float32).reshape(*d.shape, -1) * d[..., None].astype(np.float32)
    return groups.reshape(codes.shape)


def _slabs(data: Bytes, tensor: PlannedTensor, *, limit: int = SLAB_WEIGHTS) -> Iterator[Bytes]:
    """Cut the bytes of a tensor into slabs of whole rows, without its tail."""
    source, (columns, per_expert, *_) = tensor.source, tensor.shape
    rows = data[: len(data) - source.tail_bytes].reshape(-1, columns // source.block_size * source.block_bytes)
    step = max(1, limit // columns)
    for expert in range(0, len(rows), per_expert):
        for first in range(expert, expert + per_expert, step):
            yield rows[first : min(first + step, expert + per_expert)]


def _check_numbers(values: Values, tensor: PlannedTensor) -> None:
    largest = float(np.abs(values).max())
    if not math.isfinite(largest):
        why = "it holds weights that are infinite or NaN"
        raise CorruptFile(f"tensor {tensor.name} is corrupt", why=why, tensor=tensor.name)
    if largest > _HALF_MAX and tensor.target.name not in ("F32", "BF16"):
        why = f"it holds {largest:.6g}; its scales are stored in fp16, which ends at 65504"
        what = f"tensor {tensor.name} cannot become {tensor.target}"
        raise UnsupportedModel(what, why=why, hint="--rule 'NAME=bf16'", tensor=tensor.name)


def _quantize(gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer, importance: Values | None) -> Iterator[Bytes]:
    done, per_expert = 0, tensor.shape[1]
    for values in _read(gguf, tensor, codec):
        expert = None if importance is None else importance[done // per_expert]
        yield codec(values, tensor.target, expert)
        done += len(values)


def _ternary_to_q4_0(gguf: GGUFFile, tensor: PlannedTensor, *, round_scale: bool) -> Iterator[Bytes]:
    """Yield Q4_0 bytes with the codes 7, 8, 9 for -1, 0, +1 and the same scale; ggml's quantizer clips half of them."""
    source, data, name = tensor.source, gguf.tensor_bytes(tensor.name), tensor.name
    # The scale of I2_S is converted here, not in the generator below, so that an unsuitable one raises at once.
    whole = half_scales([[i2_s_scale(data, name=name)]], name=name, round_scale=round_scale) if source is I2_S else None

    def encoded(slab: Bytes) -> Bytes:
        if whole is not None:
            codes, d = unpack_i2_s(slab, name=name), np.repeat(whole, len(slab), axis=0)
        else:
            codes, d = BLOCK_CODECS[source.name].unpack(slab, name=name)
        return encode_q4((codes + np.int8(8)).view(np.uint8), d, None)

    return map(encoded, _slabs(data, tensor))


def _ternarise(gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer, *, force: bool) -> Iterator[Bytes]:
    for values in _read(gguf, tensor, codec):
        if not force:
            half_scales(_block_scales(values, tensor), name=tensor.name)
        # The engine takes the largest magnitude of a block as its scale, or the mean one in Q1_0: exact here.
        yield _to_q2_0_g128(values) if tensor.target is Q2_0_G128 else codec(values, tensor.target)


def _to_q2_0_g128(values: Values) -> Bytes:
    """Quantize as ggml does to Q2_0, in groups of 128: scale = max |w|, code = round(w / scale)."""
    groups = values.reshape(len(values), -1, Q2_0_G128.block_size)
    d = np.abs(groups).max(axis=-1)
    inverse = np.divide(1, d, out=np.zeros_like(d), where=d != 0)
    codes: Codes = _rounded(groups * inverse[..., None]).astype(np.int8).reshape(values.shape)
    return pack_q2_0_g128(codes, d.astype(np.float16))


def _rounded(values: Values) -> Values:
    """Round halves away from zero, as C does; in double precision, because 0.49999997 + 0.5 is 1 in single."""
    rounded: Values = np.trunc(values + np.copysign(0.5, values, dtype=np.float64)).astype(np.float32)
    return rounded


def _to_i2_s(gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer, *, force: bool) -> Iterator[Bytes]:
    """Yield I2_S bytes. The whole tensor shares one scale, so it is read twice: for the scale, then for the codes."""
    try:
        scale = _common_scale(gguf, tensor, codec)
    except UsageError:
        if not force:
            raise
        scale = _mean_magnitude(gguf, tensor, codec)
    inverse = np.float32(1 / scale if scale else 0)
    for values in _read(gguf, tensor, codec):
        codes: Codes = np.clip(np.rint(values * inverse), -1, 1).astype(np.int8)
        yield pack_i2_s(codes)
    yield np.frombuffer(i2_s_tail(scale), np.uint8)


def _common_scale(gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer) -> float:
    found: set[float] = set()
    for values in _read(gguf, tensor, codec):
        found |= set(np.unique(_block_scales(values, tensor)).tolist()) - {0.0}
        if len(found) > 1:
            why = f"it has several scales ({min(found):.6g} to {max(found):.6g}), but I2_S holds one per tensor"
            hint = "use TQ2_0, which holds one for every 256 weights"
            raise UsageError(f"tensor {tensor.name} cannot become I2_S without loss", why=why, hint=hint)
    return found.pop() if found else 0.0


def _mean_magnitude(gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer) -> float:
    """Return the scale with which BitNet b1.58 ternarises in training (arXiv 2402.17764, section 2)."""
    total = sum(float(np.abs(values).sum(dtype=np.float64)) for values in _read(gguf, tensor, codec))
    return total / math.prod(tensor.shape)


def _block_scales(values: Values, tensor: PlannedTensor) -> Values:
    """Return the magnitude of each block, float32 [rows, blocks]; UsageError when a block has several."""
    target = tensor.target
    magnitudes = np.abs(values).reshape(len(values), -1, target.block_size)
    scales: Values = magnitudes.max(axis=-1)
    wrong = magnitudes != scales[..., None]
    if target.ternary:
        wrong &= magnitudes != 0
    if not wrong.any():
        return scales
    row, block, _ = np.argwhere(wrong)[0]
    several, kind = len(np.unique(magnitudes[row, block])), "ternary" if target.ternary else "binary"
    what = f"{target} would destroy this model: it was not trained with {kind} weights"
    hint = "use a 4-bit type such as Q4_K_M, or --force to do it anyway"
    if target is not Q2_0 and Q2_0.fits((values.shape[1],)) and holds(Q2_0, values):
        what = f"{target} would change this model: it was trained with scales for fewer weights"
        hint = f"use {Q2_0}, which holds one for every {Q2_0.block_size} weights"
    raise UsageError(
        what,
        why=f"{tensor.name} has {several} different magnitudes among {target.block_size} weights; "
        f"{target} holds only one{', and zero' if target.ternary else ''}. "
        f"It would change these weights by {_change(values, target):.0%} of their size",
        hint=hint,
        tensor=tensor.name,
        type=target.name,
    )


def _change(values: Values, target: QuantType) -> float:
    """Return the RMS error, relative to the RMS of the weights, of quantizing as ggml does."""
    blocks = values.reshape(-1, target.block_size)
    magnitudes = np.abs(blocks)
    scale = (magnitudes.max if target.ternary else magnitudes.mean)(axis=-1, keepdims=True)
    codes = _rounded(np.divide(blocks, scale, out=np.zeros_like(blocks), where=scale != 0))
    kept = scale * (codes if target.ternary else np.where(blocks < 0, -1, 1))
    return float(np.sqrt(((blocks - kept) ** 2).mean() / (blocks**2).mean()))
