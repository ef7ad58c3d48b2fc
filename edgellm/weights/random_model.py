"""A model of a given shape with random weights: as fast as a real one of that shape, and as large.

    write_random_model(Path("bitnet-2b.gguf"), shape, weights=I2_S, head=Q6_K, codec=codec)

Values are normal, ternary codes uniform, scales such that activations keep their size; the embedding has its real
number of rows and the vocabulary its real number of (made up) tokens. One slab of rows is drawn for each matrix
and repeated down it: what the values are does not matter to the speed, and a large file is made as fast as the disk
takes it.
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
from edgellm.formats.ternary import Bytes, i2_s_tail, pack_i2_s, pack_tq1_0, pack_tq2_0
from edgellm.models.shape import Shape
from edgellm.progress import Progress, Report, silent
from edgellm.weights.mixes import named_mix

# Raised when the same arguments would make other bytes: files of earlier versions are not taken for new ones.
VERSION = 1
_F32 = named_type("F32")
_SLAB_ROWS = 256
_NORMAL, _CONTROL = 1, 3
_WORDS = ("12", "123", "1234")


class _Tensor(NamedTuple):
    """`shape` is in ne order."""

    name: str
    shape: tuple[int, ...]
    type: QuantType


def weight_type(name: str) -> QuantType:
    """A tensor type that random weights can be made in.

    Raises:
        UsageError: there is none of that name, or it is a mix of several.
    """
    mix = named_mix(name)
    if mix.base.name != name.upper():
        raise UsageError(f"{mix} is a mix of types, and random weights have one", hint=f"--quant {mix.base}")
    return mix.base


def write_random_model(
    path: Path, shape: Shape, *, weights: QuantType, head: QuantType, codec: Quantizer, report: Report = silent
) -> None:
    """Write the file, whole or not at all; every tensor is the same each time.

    Raises:
        UsageError: rows of the shape are no whole blocks of a type.
        DiskFull: no room for the file.
    """
    tensors = list(_tensors(shape, weights, head))
    for tensor in tensors:
        if not tensor.type.fits(tensor.shape):
            why = f"rows of {tensor.shape[0]} ({tensor.name}) are no multiple of {tensor.type}'s block"
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
    # bitnet.cpp, the only other reader of I2_S, takes this name for squared ReLU.
    microsoft = weights.name == "I2_S" and shape.activation == "relu2"
    arch = "bitnet-b1.58" if microsoft else shape.architecture
    own: dict[str, Scalar] = {
        "block_count": shape.n_layer,
        "context_length": shape.n_ctx,
        "embedding_length": shape.n_embd,
        # The first Qwen counts gate and up together.
        "feed_forward_length": 2 * shape.n_ff if arch == "qwen" else shape.n_ff,
        "attention.head_count": shape.n_head,
        "attention.head_count_kv": shape.n_head_kv,
        "attention.layer_norm_rms_epsilon": float(shape.rms_eps),
        "rope.dimension_count": shape.head_dim,
        "rope.freq_base": float(shape.rope_base),
        "vocab_size": shape.n_vocab,
    }
    if shape.n_q != shape.n_embd:
        own |= {"attention.key_length": shape.head_dim, "attention.value_length": shape.head_dim}
    if shape.architecture == "bitnet":
        own["hidden_activation"] = shape.activation
    if arch == "phi3":
        own |= {"attention.sliding_window": 0, "rope.scaling.original_context_length": shape.n_ctx}
    general: dict[str, Scalar | Sequence[Scalar]] = {
        "general.architecture": arch,
        "general.name": "random weights",
        "general.file_type": named_mix(weights.name).file_type,
        "general.quantization_version": 2,
    }
    return general | {f"{arch}.{suffix}": value for suffix, value in own.items()}


def _vocabulary(shape: Shape) -> dict[str, Scalar | Sequence[Scalar]]:
    """A byte-level BPE: the 256 bytes, a few words, and made-up tokens up to the number of the real vocabulary."""
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
    """All tensors in file order."""
    n_embd, n_ff = shape.n_embd, shape.n_ff
    yield _Tensor("token_embd.weight", (n_embd, shape.n_vocab), head)
    for blk in (f"blk.{layer}." for layer in range(shape.n_layer)):
        yield _Tensor(blk + "attn_norm.weight", (n_embd,), _F32)
        for name, rows in _projections(shape):
            yield _Tensor(f"{blk}{name}.weight", (n_embd, rows), weights)
            if shape.architecture.startswith("qwen"):
                yield _Tensor(f"{blk}{name}.bias", (rows,), _F32)
        if shape.architecture == "bitnet":
            yield _Tensor(blk + "attn_sub_norm.weight", (n_embd,), _F32)
            yield _Tensor(blk + "ffn_sub_norm.weight", (n_ff,), _F32)
        yield _Tensor(blk + "attn_output.weight", (shape.n_q, n_embd), weights)
        yield _Tensor(blk + "ffn_norm.weight", (n_embd,), _F32)
        if shape.architecture == "phi3":
            yield _Tensor(blk + "ffn_up.weight", (n_embd, 2 * n_ff), weights)
        else:
            yield _Tensor(blk + "ffn_gate.weight", (n_embd, n_ff), weights)
            yield _Tensor(blk + "ffn_up.weight", (n_embd, n_ff), weights)
        yield _Tensor(blk + "ffn_down.weight", (n_ff, n_embd), weights)
    yield _Tensor("output_norm.weight", (n_embd,), _F32)
    if not shape.tied:
        yield _Tensor("output.weight", (n_embd, shape.n_vocab), head)


def _projections(shape: Shape) -> list[tuple[str, int]]:
    """Names and rows of what makes queries, keys and values."""
    if shape.architecture in ("phi3", "qwen"):
        return [("attn_qkv", shape.n_q + 2 * shape.n_kv)]
    return [("attn_q", shape.n_q), ("attn_k", shape.n_kv), ("attn_v", shape.n_kv)]


def _values(tensor: _Tensor, codec: Quantizer) -> Iterator[npt.NDArray[np.generic]]:
    """The bytes of a tensor, slab by slab."""
    random = np.random.default_rng(zlib.crc32(tensor.name.encode()))
    if len(tensor.shape) == 1:
        is_bias = tensor.name.endswith(".bias")
        yield np.full(tensor.shape, 0 if is_bias else 1, np.float32)
        return
    columns, rows = tensor.shape
    # Of every row's squares the sum is 1: what goes in comes out about as large. Exact in fp16, as ternary types want.
    scale = np.float16(1 / math.sqrt(columns * (2 / 3 if tensor.type.ternary else 1)))
    slab = _slab(random, tensor.type, min(rows, _SLAB_ROWS), columns, scale, codec)
    for first in range(0, rows, _SLAB_ROWS):
        yield slab[: rows - first]
    if tensor.type.tail_bytes:
        yield np.frombuffer(i2_s_tail(float(scale)), np.uint8)


def _slab(
    random: np.random.Generator, kind: QuantType, rows: int, columns: int, scale: np.float16, codec: Quantizer
) -> Bytes:
    """Some rows, uint8 [rows, bytes of a row]."""
    if not kind.ternary:
        values = random.standard_normal((rows, columns), np.float32) * np.float32(scale)
        return codec(values, kind, np.ones(columns, np.float32))
    codes = random.integers(-1, 2, (rows, columns), np.int8)
    if kind.name == "I2_S":
        return pack_i2_s(codes)
    pack = pack_tq1_0 if kind.name == "TQ1_0" else pack_tq2_0
    return pack(codes, np.full((rows, 1), scale))
