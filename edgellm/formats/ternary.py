"""The ternary layouts, byte by byte: the reference that the C code and every converter agree with.

Codes are int8 arrays of -1, 0 and +1, shaped [rows, columns] in numpy order. Stored, a code is q = w + 1 in
two bits, or one of five base-3 digits ("trits") in a byte. Everything works on slabs of rows, so a tensor
never has to be in memory as a whole.

    data = pack_i2_s(codes)                       # uint8 [rows, columns / 4]
    assert (unpack_i2_s(data, name="blk.0.ffn_up.weight") == codes).all()
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgellm.errors import CorruptFile

Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.int8]
Halves = npt.NDArray[np.float16]

# I2_S, the type of bitnet.cpp: 128 weights in 32 bytes.
#
#   byte p of a block:   bits 7-6     5-4       3-2       1-0
#   holds the weights        p     32 + p    64 + p    96 + p
#
# The blocks of the tensor, then one little-endian float32 that multiplies all of it, then 28 bytes of padding.
I2_S_BLOCK = 128
_I2_S_SHIFTS = np.array([6, 4, 2, 0], np.uint8)

# TQ2_0, ggml: 256 weights in 66 bytes. The bit pairs run the other way than in I2_S, twice 32 bytes a block:
#
#   byte p of a half:    bits 7-6     5-4       3-2       1-0
#   holds the weights    96 + p    64 + p    32 + p         p
TQ2_0_BLOCK = np.dtype([("qs", np.uint8, 64), ("d", "<f2")])
_TQ2_0_SHIFTS = np.array([0, 2, 4, 6], np.uint8)

# TQ1_0, ggml: 256 weights in 54 bytes, five trits a byte but for the last four bytes, which hold four.
#
#   qs[p], p = 0..31     trits are the weights  p, 32 + p, 64 + p, 96 + p, 128 + p          (0..159)
#   qs[32 + p], p = 0..15                       160 + p, 176 + p, 192 + p, 208 + p, 224 + p  (160..239)
#   qh[p], p = 0..3                             240 + p, 244 + p, 248 + p, 252 + p           (240..255)
#
# The first weight is the most significant trit. A byte is not the base-3 number v (0..242) but the fixed-point
# fraction ceil(v * 256 / 243), so that a trit is the carry of a multiplication by 3 out of 8 bits.
TQ1_0_BLOCK = np.dtype([("qs", np.uint8, 48), ("qh", np.uint8, 4), ("d", "<f2")])
_FRACTION_OF = ((np.arange(243) * 256 + 242) // 243).astype(np.uint8)
_CODES_OF = ((np.array([1, 3, 9, 27, 81])[:, None] * np.arange(256) % 256 * 3 >> 8) - 1).astype(np.int8)

WEIGHTS_PER_BLOCK = 256  # of both TQ types


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
    """Return the 32 bytes that end an I2_S tensor; the padding, undefined elsewhere, is written as zeros."""
    return np.array([scale], "<f4").tobytes() + bytes(28)


def i2_s_scale(tensor: Bytes, *, name: str) -> float:
    """Return the scale in the tail of all the bytes of an I2_S tensor; CorruptFile when it is not finite."""
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
    """Return codes and block scales as `unpack_tq2_0`; no byte can hold a wrong code here."""
    blocks = data.view(TQ1_0_BLOCK)
    codes = np.empty((*blocks.shape, WEIGHTS_PER_BLOCK), np.int8)
    _split_trits(blocks["qs"][..., :32], codes[..., :160])
    _split_trits(blocks["qs"][..., 32:], codes[..., 160:240])
    _split_trits(blocks["qh"], codes[..., 240:])
    return codes.reshape(len(data), -1), block_scales(data, TQ1_0_BLOCK, name=name)


def pack_bitlinear(codes: Codes) -> Bytes:
    """Return codes as packed safetensors hold them, uint8 [rows / 4, columns].

    Byte r of a column holds the rows r, r + rows/4, r + 2 rows/4 and r + 3 rows/4 in bits 1-0, 3-2, 5-4, 7-6.
    """
    rows, columns = codes.shape
    q = _as_stored(codes).reshape(1, 4, rows // 4 * columns)
    return _join_pairs(q, _TQ2_0_SHIFTS).reshape(rows // 4, columns)


def unpack_bitlinear(packed: Bytes, *, name: str, start: int = 0, stop: int | None = None) -> Codes:
    """Return the rows `start` to `stop` of the codes in packed safetensors bytes [rows / 4, columns].

    A slab touches only the bytes that hold it; CorruptFile if a code in it is 3.
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
    """Return the block scales in rows of TQ2_0_BLOCK or TQ1_0_BLOCK bytes; CorruptFile when one is not finite."""
    d: Halves = np.ascontiguousarray(data.view(layout)["d"])
    if not np.isfinite(d).all():
        raise CorruptFile(f"tensor {name} is corrupt", why="a block's scale is not finite", tensor=name)
    return d


def refuse_code_3(pairs: Bytes, *, name: str) -> None:
    """Raise CorruptFile when one of the bit pairs is 3, the code that means nothing."""
    if (pairs & (pairs >> 1) & 0b01010101).any():
        raise _code_3(name)


def _code_3(name: str) -> CorruptFile:
    why = "its codes contain a 3; ternary weights are stored as 0, 1 and 2"
    return CorruptFile(f"tensor {name} is corrupt", why=why, tensor=name)


def _as_stored(codes: Codes) -> Bytes:
    q: Bytes = (codes + np.int8(1)).view(np.uint8)
    if q.size and q.max() > 2:
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
