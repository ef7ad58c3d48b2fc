"""Writes a model of a given shape with random weights, as large and as fast as a real one of that shape.

    write_random_model(Path("bitnet-2b.gguf"), shape, weights=I2_S, head=Q6_K, codec=codec)

Values are normally distributed, ternary codes uniformly, and the scales keep activations at about the same size.
The embedding has its real number of rows, and the vocabulary its real number of (made-up) tokens. Each matrix
repeats one random slab of rows: the values do not affect speed, and the file is written as fast as the disk allows.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgellm.engine.quantize import Quantizer
from edgellm.errors import UsageError
from edgellm.formats.gguf_metadata import Scalar
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.quant_types import QuantType, named_type
from edgellm.formats.ternary import BLOCK_CODECS, Bytes, i2_s_tail, pack_i2_s
from edgellm.models.fit.shape import Shape
from edgellm.progress import Progress, Report, silent
from edgellm.weights.quantize.mixes import named_mix

# Increment when the same arguments produce different bytes, so that older files are not reused.
VERSION = 2
_F32 = named_type("F32")
_SLAB_ROWS = 256
_NORMAL, _CONTROL = 1, 3
_WORDS = ("12", "123", "1234")


class _Tensor(NamedTuple):
    """A tensor to write; `shape` is in ne order."""

    name: str
    shape: tuple[int, ...]
    type: QuantType


def weight_type(name: str) -> QuantType:
    """Return the tensor type of this name, if random weights can have it.

    Raises:
        UsageError: no type has this name, or it is a mix of several types.
    """
    mix = named_mix(name)
    if mix.base.name != name.upper():
        raise UsageError(f"{mix} is a mix of types, but random weights have one", hint=f"--quant {mix.base}")
    return mix.base


def write_random_model(
    path: Path, shape: Shape, *, weights: QuantType, head: QuantType, codec: Quantizer, report: Report = silent
) -> None:
    """Write the file, whole or not at all. The same arguments always write the same bytes.

    Raises:
        UsageError: the rows of the shape are not whole blocks of a type.
        DiskFull: there is no room for the file.
    """
    tensors = list(_tensors(shape, weights, head))
    for tensor in tensors:
        if not tensor.type.fits(tensor.shape):
            why = f"rows of {tensor.shape[0]} ({tensor.name}) are not a multiple of {tensor.type}'s block"
            raise UsageError(f"this shape cannot be made in {tensor.type}", why=why, hint="--quant Q8_0 --head Q8_0")
    with GGUFWriter(path) as out:
        for key, value in (_general(shape, weights) | _vocabulary(shape)).items():
            out.add(key, value)
        for tensor in tensors:
            out.declare(*tensor)
        total, done = out.nbytes, 0
        for tensor in tensors:
            report(Progress("making the random model", done, total, "B"))
            out.write(tensor.name, _values(tensor, codec))
            done += math.prod(tensor.shape) // tensor.type.block_size * tensor.type.block_bytes
        report(Progress("making the random model", total, total, "B"))


def _general(shape: Shape, weights: QuantType) -> dict[str, Scalar | Sequence[Scalar]]:
    # bitnet.cpp, the only other reader of I2_S, uses squared ReLU for this name.
    microsoft = weights.name == "I2_S" and shape.activation == "relu2"
    arch = "bitnet-b1.58" if microsoft else shape.architecture
    own: dict[str, Scalar | Sequence[Scalar]] = {
        "block_count": shape.n_layer,
        "context_length": shape.n_ctx,
        "embedding_length": shape.n_embd,
        "attention.head_count": shape.n_head,
        "attention.head_count_kv": shape.n_head_kv,
        "attention.layer_norm_rms_epsilon": float(shape.rms_eps),
        "rope.dimension_count": shape.head_dim,
        "rope.freq_base": float(shape.rope_base),
        "vocab_size": shape.n_vocab,
    }
    if shape.n_expert:
        own |= {"expert_count": shape.n_expert, "expert_used_count": shape.n_expert_used}
        own["expert_feed_forward_length"] = shape.n_ff
    else:
        # The first Qwen counts the rows of gate and up together.
        own["feed_forward_length"] = 2 * shape.n_ff if arch == "qwen" else shape.n_ff
    if shape.n_q != shape.n_embd:
        own |= {"attention.key_length": shape.head_dim, "attention.value_length": shape.head_dim}
    if shape.architecture == "bitnet":
        own["hidden_activation"] = shape.activation
    if arch == "phi3":
        own |= {"attention.sliding_window": 0, "rope.scaling.original_context_length": shape.n_ctx}
    if arch == "maple":
        # Every fourth layer sees the whole context.
        windows = [layer % 4 != 3 for layer in range(shape.n_layer)]
        own |= {"attention.sliding_window": shape.window, "attention.sliding_window_pattern": windows}
        own["swiglu_clamp_exp"] = [7.0] * shape.n_layer
    general: dict[str, Scalar | Sequence[Scalar]] = {
        "general.architecture": arch,
        "general.name": "random weights",
        "general.file_type": named_mix(weights.name).file_type,
        "general.quantization_version": 2,
    }
    return general | {f"{arch}.{suffix}": value for suffix, value in own.items()}


def _vocabulary(shape: Shape) -> dict[str, Scalar | Sequence[Scalar]]:
    """Return a byte-level BPE: the 256 bytes, a few words, and made-up tokens up to the real vocabulary's size."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in visible]
    character = {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    tokens = [*(character[byte] for byte in range(256)), *_WORDS, "<s>", "</s>"]
    n_special = 2
    bos = len(tokens) - n_special
    made_up = [f"token{number:07d}" for number in range(shape.n_vocab - len(tokens))]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens + made_up,
        "tokenizer.ggml.token_type": [_NORMAL] * bos + [_CONTROL] * n_special + [_NORMAL] * len(made_up),
        "tokenizer.ggml.merges": ["1 2", "12 3", "123 4"],
        "tokenizer.ggml.bos_token_id": bos,
        "tokenizer.ggml.eos_token_id": bos + 1,
        "tokenizer.ggml.add_bos_token": True,
    }


def _tensors(shape: Shape, weights: QuantType, head: QuantType) -> Iterator[_Tensor]:
    """Yield all tensors in file order."""
    n_embd = shape.n_embd
    yield _Tensor("token_embd.weight", (n_embd, shape.n_vocab), head)
    for blk in (f"blk.{layer}." for layer in range(shape.n_layer)):
        yield _Tensor(blk + "attn_norm.weight", (n_embd,), _F32)
        for name, rows in _projections(shape):
            yield _Tensor(f"{blk}{name}.weight", (n_embd, rows), weights)
            if shape.architecture in ("qwen", "qwen2"):
                yield _Tensor(f"{blk}{name}.bias", (rows,), _F32)
            if shape.architecture in ("maple", "qwen3") and name != "attn_v":
                yield _Tensor(f"{blk}{name}_norm.weight", (shape.head_dim,), _F32)
        if shape.architecture == "bitnet":
            yield _Tensor(blk + "attn_sub_norm.weight", (n_embd,), _F32)
            yield _Tensor(blk + "ffn_sub_norm.weight", (shape.n_ff,), _F32)
        yield _Tensor(blk + "attn_output.weight", (shape.n_q, n_embd), weights)
        yield _Tensor(blk + "ffn_norm.weight", (n_embd,), _F32)
        yield from _feed_forward(shape, blk, weights)
    yield _Tensor("output_norm.weight", (n_embd,), _F32)
    if not shape.tied:
        yield _Tensor("output.weight", (n_embd, shape.n_vocab), head)


def _feed_forward(shape: Shape, blk: str, weights: QuantType) -> Iterator[_Tensor]:
    n_embd, n_ff = shape.n_embd, shape.n_ff
    if shape.n_expert:
        yield _Tensor(blk + "ffn_gate_inp.weight", (n_embd, shape.n_expert), _F32)
        for name, columns, rows in (("gate", n_embd, n_ff), ("down", n_ff, n_embd), ("up", n_embd, n_ff)):
            yield _Tensor(f"{blk}ffn_{name}_exps.weight", (columns, rows, shape.n_expert), weights)
    elif shape.architecture == "phi3":
        yield _Tensor(blk + "ffn_up.weight", (n_embd, 2 * n_ff), weights)
        yield _Tensor(blk + "ffn_down.weight", (n_ff, n_embd), weights)
    else:
        for name, columns, rows in (("gate", n_embd, n_ff), ("up", n_embd, n_ff), ("down", n_ff, n_embd)):
            yield _Tensor(f"{blk}ffn_{name}.weight", (columns, rows), weights)


def _projections(shape: Shape) -> list[tuple[str, int]]:
    """Return the names and row counts of the query, key and value projections."""
    if shape.architecture in ("phi3", "qwen"):
        return [("attn_qkv", shape.n_q + 2 * shape.n_kv)]
    return [("attn_q", shape.n_q), ("attn_k", shape.n_kv), ("attn_v", shape.n_kv)]


def _values(tensor: _Tensor, codec: Quantizer) -> Iterator[npt.NDArray[np.generic]]:
    """Yield the bytes of a tensor, slab by slab."""
    random = np.random.default_rng(zlib.crc32(tensor.name.encode()))
    if len(tensor.shape) == 1:
        is_bias = tensor.name.endswith(".bias")
        yield np.full(tensor.shape, 0 if is_bias else 1, np.float32)
        return
    columns, rows = tensor.shape[0], math.prod(tensor.shape[1:])
    # The squares of each row sum to 1, so outputs are about as large as inputs. Exact in fp16, for ternary types.
    scale = np.float16(1 / math.sqrt(columns * (2 / 3 if tensor.type.ternary else 1)))
    scales = np.full((min(rows, _SLAB_ROWS), 1), scale)
    if len(tensor.shape) > 2:  # no training gives all experts the same one
        scales *= random.uniform(0.75, 1.25, scales.shape).astype(np.float16)
    slab = _slab(random, tensor.type, columns, scales, codec)
    for first in range(0, rows, _SLAB_ROWS):
        yield slab[: rows - first]
    if tensor.type.tail_bytes:
        yield np.frombuffer(i2_s_tail(float(scale)), np.uint8)


def _slab(
    random: np.random.Generator, kind: QuantType, columns: int, scales: npt.NDArray[np.float16], codec: Quantizer
) -> Bytes:
    """Return some encoded rows, uint8 [rows, bytes of a row], with a scale for each: float16 [rows, 1]."""
    shape = len(scales), columns
    if not kind.one_magnitude:
        values = random.standard_normal(shape, np.float32) * scales.astype(np.float32)
        return codec(values, kind, np.ones(columns, np.float32))
    if kind.binary:
        codes = 2 * random.integers(0, 2, shape, np.int8) - np.int8(1)
    else:
        codes = random.integers(-1, 2, shape, np.int8)
    if kind.name == "I2_S":
        return pack_i2_s(codes)
    return BLOCK_CODECS[kind.name].pack(codes, scales)
