"""The bytes of one tensor of a GGUF file in another type, slab by slab.

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
from edgellm.formats.ternary import (
    Bytes,
    Codes,
    i2_s_scale,
    i2_s_tail,
    pack_i2_s,
    unpack_i2_s,
    unpack_tq1_0,
    unpack_tq2_0,
)
from edgellm.formats.ternary_transcode import I2_S, half_scales, transcode
from edgellm.weights.quantization_plan import Action, PlannedTensor
from edgellm.weights.slabs import encode_q4

SLAB_WEIGHTS = 1 << 21  # 8 MB of float32, and a few temporaries of that size
_HALF_MAX = 65504.0


def encode(
    gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer, *, importance: Values | None = None, force: bool = False
) -> Iterator[Bytes]:
    """Return the bytes of a tensor in its planned type, in slabs.

    `importance` is float32 [experts, columns]. `force` permits what loses: ternary types for weights that are not
    ternary, and the rounding of a ternary scale to fp16. Raises UsageError or LossyTranscode without it (the latter at
    once, before the first slab), CorruptFile for weights that are no numbers, and UnsupportedModel for those that the
    type cannot hold.
    """
    match tensor.action:
        case Action.COPY if not tensor.source.ternary:
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
    """Raise UsageError when the first rows of a tensor show that it is not ternary: cheap, and nearly always right."""
    _block_scales(next(_read(gguf, tensor, codec, limit=1 << 16)), tensor)


def _read(gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer, *, limit: int = SLAB_WEIGHTS) -> Iterator[Values]:
    """Yield the weights in float32 [rows, columns], checked; no slab reaches over the end of an expert."""
    data = gguf.tensor_bytes(tensor.name)
    for slab in _slabs(data, tensor, limit=limit):
        if tensor.source is I2_S:
            values = unpack_i2_s(slab, name=tensor.name) * np.float32(i2_s_scale(data, name=tensor.name))
        else:
            values = codec.decode(slab, tensor.source)
        _check_numbers(values, tensor)
        yield values


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
        why = "it holds weights that are infinite or no numbers"
        raise CorruptFile(f"tensor {tensor.name} is corrupt", why=why, tensor=tensor.name)
    if largest > _HALF_MAX and tensor.target.name not in ("F32", "BF16"):
        why = f"it holds {largest:.6g}; fp16, which all scales are stored in, ends at 65504"
        what = f"tensor {tensor.name} cannot become {tensor.target}"
        raise UnsupportedModel(what, why=why, hint="--rule 'NAME=bf16'", tensor=tensor.name)


def _quantize(gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer, importance: Values | None) -> Iterator[Bytes]:
    done, per_expert = 0, tensor.shape[1]
    for values in _read(gguf, tensor, codec):
        expert = None if importance is None else importance[done // per_expert]
        yield codec(values, tensor.target, expert)
        done += len(values)


def _ternary_to_q4_0(gguf: GGUFFile, tensor: PlannedTensor, *, round_scale: bool) -> Iterator[Bytes]:
    """The codes 7, 8, 9 of Q4_0 are the weights -1, 0, +1 under the same scale; ggml's quantizer clips half of them."""
    source, data, name = tensor.source, gguf.tensor_bytes(tensor.name), tensor.name
    # Of I2_S; not in the generator below, so that a scale which fp16 cannot hold is refused at once.
    whole = half_scales([[i2_s_scale(data, name=name)]], name=name, round_scale=round_scale) if source is I2_S else None

    def encoded(slab: Bytes) -> Bytes:
        if whole is not None:
            codes, d = unpack_i2_s(slab, name=name), np.repeat(whole, len(slab), axis=0)
        else:
            codes, d = (unpack_tq1_0 if source.name == "TQ1_0" else unpack_tq2_0)(slab, name=name)
        return encode_q4((codes + np.int8(8)).view(np.uint8), d, None)

    return map(encoded, _slabs(data, tensor))


def _ternarise(gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer, *, force: bool) -> Iterator[Bytes]:
    for values in _read(gguf, tensor, codec):
        if not force:
            half_scales(_block_scales(values, tensor), name=tensor.name)
        yield codec(values, tensor.target)  # its scale of a block is the largest magnitude: exact for these weights


def _to_i2_s(gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer, *, force: bool) -> Iterator[Bytes]:
    """The whole tensor shares one scale, so it is read twice: the scale first, then the codes."""
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
            why = f"it has several scales ({min(found):.6g} to {max(found):.6g}), and I2_S holds one a tensor"
            hint = "TQ2_0, which holds one for every 256 weights"
            raise UsageError(f"tensor {tensor.name} cannot become I2_S without loss", why=why, hint=hint)
    return found.pop() if found else 0.0


def _mean_magnitude(gguf: GGUFFile, tensor: PlannedTensor, codec: Quantizer) -> float:
    """The scale that BitNet b1.58 ternarises with in training (arXiv 2402.17764, section 2)."""
    total = sum(float(np.abs(values).sum(dtype=np.float64)) for values in _read(gguf, tensor, codec))
    return total / math.prod(tensor.shape)


def _block_scales(values: Values, tensor: PlannedTensor) -> Values:
    """The one magnitude in each block, float32 [rows, blocks]; UsageError when a block has several."""
    magnitudes = np.abs(values).reshape(len(values), -1, tensor.target.block_size)
    scales: Values = magnitudes.max(axis=-1)
    wrong = (magnitudes != 0) & (magnitudes != scales[..., None])
    if not wrong.any():
        return scales
    row, block, _ = np.argwhere(wrong)[0]
    several = len(np.unique(magnitudes[row, block]))
    raise UsageError(
        f"{tensor.target} would destroy this model: it was not trained with ternary weights",
        why=f"{tensor.name} has {several} different magnitudes among {tensor.target.block_size} weights; "
        "a ternary type keeps one, and zero",
        hint="a 4-bit type such as Q4_K_M, or --force to make it all the same",
        tensor=tensor.name,
        type=tensor.target.name,
    )
