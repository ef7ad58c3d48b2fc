"""The ternary and binary layouts, byte by byte: the reference that the C code and every converter must match.

Codes are int8 arrays of -1, 0 and +1, shaped [rows, columns] in numpy order. A code is stored as q = w + 1 in
two bits, or as one of five base-3 digits ("trits") in a byte; binary codes, -1 and +1, as one bit. All functions
work on slabs of rows, so a tensor need not be in memory as a whole.

    data = pack_i2_s(codes)                       # uint8 [rows, columns / 4]
    assert (unpack_i2_s(data, name="blk.0.ffn_up.weight") == codes).all()
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edgellm.errors import CorruptFile

Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.int8]
Halves = npt.NDArray[np.float16]

# I2_S, bitnet.cpp: 128 weights in 32 bytes.
#
#   byte p of a block:   bits 7-6     5-4       3-2       1-0
#   holds the weights        p     32 + p    64 + p    96 + p
#
# After the blocks of the tensor come its scale, one little-endian float32, and 28 bytes of padding.
I2_S_BLOCK = 128
_I2_S_SHIFTS = np.array([6, 4, 2, 0], np.uint8)

# TQ2_0, ggml: 256 weights in 66 bytes. The bit pairs run in the opposite order to I2_S, in two halves of 32 bytes:
#
#   byte p of a half:    bits 7-6     5-4       3-2       1-0
#   holds the weights    96 + p    64 + p    32 + p         p
TQ2_0_BLOCK = np.dtype([("qs", np.uint8, 64), ("d", "<f2")])
_TQ2_0_SHIFTS = np.array([0, 2, 4, 6], np.uint8)

# TQ1_0, ggml: 256 weights in 54 bytes, five trits a byte, except for the last four bytes, which hold four each.
#
#   qs[p], p = 0..31     trits are the weights  p, 32 + p, 64 + p, 96 + p, 128 + p          (0..159)
#   qs[32 + p], p = 0..15                       160 + p, 176 + p, 192 + p, 208 + p, 224 + p  (160..239)
#   qh[p], p = 0..3                             240 + p, 244 + p, 248 + p, 252 + p           (240..255)
#
# The first weight is the most significant trit. A byte does not store the base-3 number v (0..242) but the
# fixed-point fraction ceil(v * 256 / 243): multiplying it by 3 carries one trit out of the 8 bits.
TQ1_0_BLOCK = np.dtype([("qs", np.uint8, 48), ("qh", np.uint8, 4), ("d", "<f2")])
_FRACTION_OF = ((np.arange(243) * 256 + 242) // 243).astype(np.uint8)
_CODES_OF = ((np.array([1, 3, 9, 27, 81])[:, None] * np.arange(256) % 256 * 3 >> 8) - 1).astype(np.int8)

WEIGHTS_PER_BLOCK = 256  # of both TQ types

# Q2_0, ggml: the scale, then 64 weights in 16 bytes. Q2_0_G128, prism-ml: the scale, then 128 weights in 32 bytes.
#
#   byte p of a block:   bits 7-6     5-4       3-2       1-0
#   holds the weights     4p + 3    4p + 2    4p + 1       4p
#
# The code 3 is legal here and means +2. Files of models trained ternary do not contain it.
Q2_0_BLOCK = np.dtype([("d", "<f2"), ("qs", np.uint8, 16)])
Q2_0_G128_BLOCK = np.dtype([("d", "<f2"), ("qs", np.uint8, 32)])

# Q1_0, ggml: the scale, then 128 weights in 16 bytes: bit i of byte p is the weight 8p + i, 1 for +1 and 0 for -1.
Q1_0_BLOCK = np.dtype([("d", "<f2"), ("qs", np.uint8, 16)])


def pack_i2_s(codes: Codes) -> Bytes:
    """Return the I2_S bytes [rows, columns / 4] of codes; columns must be a multiple of 128."""
    rows, columns = codes.shape
    q = _as_stored(codes).reshape(-1, 4, I2_S_BLOCK // 4)
    return _join_pairs(q, _I2_S_SHIFTS).reshape(rows, columns // 4)


def unpack_i2_s(data: Bytes, *, name: str) -> Codes:
    """Return the codes [rows, columns] in I2_S bytes [rows, columns / 4]; CorruptFile if a code is 3."""
    rows, row_bytes = data.shape
    refuse_code_3(data, name=name)
    return _split_pairs(data.reshape(-1, I2_S_BLOCK // 4), _I2_S_SHIFTS).reshape(rows, row_bytes * 4)


def i2_s_tail(scale: float) -> bytes:
    """Return the 32 bytes that end an I2_S tensor. The padding, undefined in other writers, is zeros."""
    return np.array([scale], "<f4").tobytes() + bytes(28)


def i2_s_scale(tensor: Bytes, *, name: str) -> float:
    """Return the scale in the tail of an I2_S tensor, given all its bytes; CorruptFile when it is not finite."""
    scale = float(tensor[-32:-28].view("<f4")[0])
    if not np.isfinite(scale):
        raise CorruptFile(f"tensor {name} is corrupt", why=f"its scale is {scale}", tensor=name)
    return scale


def pack_tq2_0(codes: Codes, d: Halves) -> Bytes:
    """Return the TQ2_0 bytes [rows, columns / 256 * 66]; `d` are block scales, broadcast to [rows, columns / 256]."""
    rows, columns = codes.shape
    blocks = np.empty((rows, columns // WEIGHTS_PER_BLOCK), TQ2_0_BLOCK)
    q = _as_stored(codes).reshape(-1, 4, 32)
    blocks["qs"] = _join_pairs(q, _TQ2_0_SHIFTS).reshape(*blocks.shape, 64)
    blocks["d"] = d
    return blocks.view(np.uint8)


def unpack_tq2_0(data: Bytes, *, name: str) -> tuple[Codes, Halves]:
    """Return the codes [rows, columns] and block scales [rows, columns / 256] in TQ2_0 bytes.

    Raises CorruptFile if a code is 3 or a scale is not finite.
    """
    blocks = data.view(TQ2_0_BLOCK)
    qs = np.ascontiguousarray(blocks["qs"])
    refuse_code_3(qs, name=name)
    codes = _split_pairs(qs.reshape(-1, 32), _TQ2_0_SHIFTS)
    return codes.reshape(len(data), -1), block_scales(data, TQ2_0_BLOCK, name=name)


def pack_tq1_0(codes: Codes, d: Halves) -> Bytes:
    """Return the TQ1_0 bytes [rows, columns / 256 * 54]; `d` as in `pack_tq2_0`."""
    rows, columns = codes.shape
    blocks = np.empty((rows, columns // WEIGHTS_PER_BLOCK), TQ1_0_BLOCK)
    q = _as_stored(codes).reshape(*blocks.shape, WEIGHTS_PER_BLOCK)
    blocks["qs"][..., :32] = _join_trits(q[..., :160], 5)
    blocks["qs"][..., 32:] = _join_trits(q[..., 160:240], 5)
    blocks["qh"] = _join_trits(q[..., 240:], 4)
    blocks["d"] = d
    return blocks.view(np.uint8)


def unpack_tq1_0(data: Bytes, *, name: str) -> tuple[Codes, Halves]:
    """Return codes and block scales as `unpack_tq2_0` does; every byte decodes to valid codes."""
    blocks = data.view(TQ1_0_BLOCK)
    codes = np.empty((*blocks.shape, WEIGHTS_PER_BLOCK), np.int8)
    _split_trits(blocks["qs"][..., :32], codes[..., :160])
    _split_trits(blocks["qs"][..., 32:], codes[..., 160:240])
    _split_trits(blocks["qh"], codes[..., 240:])
    return codes.reshape(len(data), -1), block_scales(data, TQ1_0_BLOCK, name=name)


def pack_q2_0(codes: Codes, d: Halves, layout: np.dtype[np.void] = Q2_0_BLOCK) -> Bytes:
    """Return the bytes [rows, blocks * block bytes] of codes -1 to +2; `d` broadcasts to [rows, blocks]."""
    n = layout["qs"].shape[0]
    blocks = np.empty((len(codes), codes.shape[1] // (4 * n)), layout)
    q = _as_stored(codes, largest=3).reshape(-1, n, 4).swapaxes(1, 2)
    blocks["qs"] = _join_pairs(q, _TQ2_0_SHIFTS).reshape(*blocks.shape, n)
    blocks["d"] = d
    return blocks.view(np.uint8)


def unpack_q2_0(data: Bytes, *, name: str, layout: np.dtype[np.void] = Q2_0_BLOCK) -> tuple[Codes, Halves]:
    """Return the codes [rows, columns], -1 to +2, and the scales [rows, blocks]; CorruptFile as `unpack_tq2_0`."""
    qs = np.ascontiguousarray(data.view(layout)["qs"])
    codes = _split_pairs(qs.reshape(-1, qs.shape[-1]), _TQ2_0_SHIFTS).swapaxes(1, 2)
    return codes.reshape(len(data), -1), block_scales(data, layout, name=name)


def pack_q2_0_g128(codes: Codes, d: Halves) -> Bytes:
    """Return the bytes of Q2_0 in groups of 128, as `pack_q2_0`."""
    return pack_q2_0(codes, d, Q2_0_G128_BLOCK)


def unpack_q2_0_g128(data: Bytes, *, name: str) -> tuple[Codes, Halves]:
    """Return the codes and scales of Q2_0 in groups of 128, as `unpack_q2_0`."""
    return unpack_q2_0(data, name=name, layout=Q2_0_G128_BLOCK)


def pack_q1_0(codes: Codes, d: Halves) -> Bytes:
    """Return the Q1_0 bytes [rows, columns / 128 * 18] of codes -1 and +1; `d` broadcasts to [rows, columns / 128].

    A code 0 becomes +1, as in ggml: it is right only where the scale is 0.
    """
    blocks = np.empty((len(codes), codes.shape[1] // 128), Q1_0_BLOCK)
    blocks["qs"] = np.packbits(codes >= 0, axis=1, bitorder="little").reshape(*blocks.shape, 16)
    blocks["d"] = d
    return blocks.view(np.uint8)


def unpack_q1_0(data: Bytes, *, name: str) -> tuple[Codes, Halves]:
    """Return the codes, -1 and +1, and the scales in Q1_0 bytes; CorruptFile when a scale is not finite."""
    qs = np.ascontiguousarray(data.view(Q1_0_BLOCK)["qs"]).reshape(len(data), -1)
    codes = 2 * np.unpackbits(qs, axis=1, bitorder="little").view(np.int8) - np.int8(1)
    return codes, block_scales(data, Q1_0_BLOCK, name=name)


class Unpack(Protocol):
    """Returns the codes [rows, columns] and scales [rows, blocks] in bytes [rows, bytes of a row]."""

    def __call__(self, data: Bytes, *, name: str) -> tuple[Codes, Halves]:
        """Raise CorruptFile, which names the tensor, for a code or a scale that cannot be."""


class BlockCodec(NamedTuple):
    """How a type whose blocks hold codes and one fp16 scale is read and written."""

    layout: np.dtype[np.void]
    pack: Callable[[Codes, Halves], Bytes]
    unpack: Unpack


BLOCK_CODECS = {
    "TQ1_0": BlockCodec(TQ1_0_BLOCK, pack_tq1_0, unpack_tq1_0),
    "TQ2_0": BlockCodec(TQ2_0_BLOCK, pack_tq2_0, unpack_tq2_0),
    "Q2_0": BlockCodec(Q2_0_BLOCK, pack_q2_0, unpack_q2_0),
    "Q2_0_G128": BlockCodec(Q2_0_G128_BLOCK, pack_q2_0_g128, unpack_q2_0_g128),
    "Q1_0": BlockCodec(Q1_0_BLOCK, pack_q1_0, unpack_q1_0),
}


def pack_bitlinear(codes: Codes) -> Bytes:
    """Return codes as packed safetensors store them, uint8 [rows / 4, columns].

    Byte r of a column holds the rows r, r + rows/4, r + 2 rows/4 and r + 3 rows/4 in bits 1-0, 3-2, 5-4, 7-6.
    """
    rows, columns = codes.shape
    q = _as_stored(codes).reshape(1, 4, rows // 4 * columns)
    return _join_pairs(q, _TQ2_0_SHIFTS).reshape(rows // 4, columns)


def unpack_bitlinear(packed: Bytes, *, name: str, start: int = 0, stop: int | None = None) -> Codes:
    """Return the rows `start` to `stop` of the codes in packed safetensors bytes [rows / 4, columns].

    Only the bytes that hold these rows are read; CorruptFile if one of their codes is 3.
    """
    quarter, columns = packed.shape
    stop = 4 * quarter if stop is None else stop
    codes = np.empty((stop - start, columns), np.int8)
    for field in range(4):
        first, last = max(start, field * quarter), min(stop, (field + 1) * quarter)
        if first < last:
            held = packed[first - field * quarter : last - field * quarter]
            codes[first - start : last - start] = (held >> 2 * field) & 3
    if (codes == 3).any():
        raise _code_3(name)
    codes -= 1
    return codes


def block_scales(data: Bytes, layout: np.dtype[np.void], *, name: str) -> Halves:
    """Return the block scales of rows in the layout of a BlockCodec; CorruptFile when one is not finite."""
    d: Halves = np.ascontiguousarray(data.view(layout)["d"])
    if not np.isfinite(d).all():
        raise CorruptFile(f"tensor {name} is corrupt", why="the scale of a block is not finite", tensor=name)
    return d


def refuse_code_3(pairs: Bytes, *, name: str) -> None:
    """Raise CorruptFile when one of the bit pairs is 3, which is not a ternary code."""
    if has_code_3(pairs):
        raise _code_3(name)


def has_code_3(pairs: Bytes) -> bool:
    """Whether one of the bit pairs is 3."""
    return bool((pairs & (pairs >> 1) & 0b01010101).any())


def _code_3(name: str) -> CorruptFile:
    why = "its codes contain a 3; ternary weights are stored as 0, 1 and 2"
    return CorruptFile(f"tensor {name} is corrupt", why=why, tensor=name)


def _as_stored(codes: Codes, *, largest: int = 2) -> Bytes:
    q: Bytes = (codes + np.int8(1)).view(np.uint8)
    if q.size and q.max() > largest:
        raise ValueError("ternary codes are -1, 0 and +1")
    return q


def _join_pairs(q: Bytes, shifts: Bytes) -> Bytes:
    """[blocks, 4, n] stored codes -> [blocks, n] bytes, field i at bit shifts[i]."""
    joined: Bytes = q[:, 0] << shifts[0]
    for field in (1, 2, 3):
        joined |= q[:, field] << shifts[field]
    return joined


def _split_pairs(data: Bytes, shifts: Bytes) -> Codes:
    """[blocks, n] bytes -> [blocks, 4, n] codes."""
    blocks, n = data.shape
    codes = np.empty((blocks, 4, n), np.int8)
    for field, shift in enumerate(shifts):
        codes[:, field] = (data >> shift) & 3
    codes -= 1
    return codes


def _join_trits(q: Bytes, trits: int) -> Bytes:
    """[..., trits * n] stored codes -> [..., n] bytes, the first n weights most significant."""
    digits = q.reshape(*q.shape[:-1], trits, -1)
    value = digits[..., 0, :].copy()
    for i in range(1, trits):
        value = value * 3 + digits[..., i, :]  # at most 3**5 - 1 = 242
    fractions: Bytes = _FRACTION_OF[value * 3 ** (5 - trits)]
    return fractions


def _split_trits(data: Bytes, codes: Codes) -> None:
    """[..., n] bytes -> [..., trits * n] codes, written into `codes`."""
    n = data.shape[-1]
    for i in range(codes.shape[-1] // n):
        codes[..., i * n : (i + 1) * n] = _CODES_OF[i][data]
