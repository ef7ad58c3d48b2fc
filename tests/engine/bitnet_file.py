"""Writes BitNet models with random weights to GGUF files, with the shapes and names of the published ones.

    python tests/engine/bitnet_file.py --vocab TREE/models/ggml-vocab-llama-bpe.gguf -o bitnet-2b-4t.gguf

writes a file of the shape of BitNet b1.58 2B-4T (1.2 GB) as bitnet.cpp writes it: architecture `bitnet-b1.58`,
I2_S under type id 36, file type 40, an F16 embedding that is also the head, no key for the pre-tokenizer.
"""

import argparse
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_metadata import Scalar
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.quant_types import named_type

FILE_TYPE_I2_S = 40

Array = npt.NDArray[np.generic]
Keys = Mapping[str, Scalar | Sequence[Scalar]]


@dataclass(frozen=True)
class Shape:
    """The dimensions of a BitNet; `seed` determines its weights."""

    n_layers: int
    width: int
    ffn: int
    n_heads: int
    n_kv_heads: int
    vocab: int
    rope_base: float = 500_000.0
    eps: float = 1e-5
    seed: int = 0

    @property
    def head_size(self) -> int:
        return self.width // self.n_heads


TINY = Shape(n_layers=2, width=256, ffn=384, n_heads=4, n_kv_heads=2, vocab=320)
BITNET_2B_4T = Shape(n_layers=30, width=2560, ffn=6912, n_heads=20, n_kv_heads=5, vocab=128256)


@dataclass(frozen=True)
class Ternary:
    """A matrix of codes -1, 0, +1, shaped [rows, columns], and the scale of all of them."""

    codes: npt.NDArray[np.int8]
    scale: np.float32

    def i2_s(self) -> bytes:
        """The tensor's bytes: codes, scale, and padding with arbitrary content."""
        q = (self.codes + 1).astype(np.uint8).reshape(-1, 4, 32)
        codes = q[:, 0] << 6 | q[:, 1] << 4 | q[:, 2] << 2 | q[:, 3]
        return codes.tobytes() + self.scale.astype("<f4").tobytes() + b"\xff" * 28


class Tensor(NamedTuple):
    """A tensor to write: its shape in numpy order, its type, and a function that makes its value."""

    name: str
    shape: tuple[int, ...]
    type: str
    value: Callable[[], Array | Ternary]


def tensors(shape: Shape) -> Iterator[Tensor]:
    """All tensors of the model; each has its own random generator, so they can be made in any order."""

    def rng(name: str) -> np.random.Generator:
        return np.random.default_rng([shape.seed, zlib.crc32(name.encode())])

    def norm(name: str, length: int) -> Tensor:
        return Tensor(name, (length,), "F32", lambda: rng(name).uniform(0.5, 1.5, length).astype(np.float32))

    def ternary(name: str, rows: int, columns: int) -> Tensor:
        # the scale keeps activations at their size, and is not a float16 number
        scale = np.float32(rng(name + ".scale").uniform(0.8, 1.2) / np.sqrt(columns * 2 / 3))
        return Tensor(
            name, (rows, columns), "I2_S", lambda: Ternary(rng(name).integers(-1, 2, (rows, columns), np.int8), scale)
        )

    def embedding() -> Array:
        values = rng("token_embd.weight").standard_normal((shape.vocab, shape.width), np.float32)
        values *= np.float32(2 / np.sqrt(shape.width))  # it is also the head: keeps logits moderate
        return values.astype(np.float16)

    width, ffn, kv_width = shape.width, shape.ffn, shape.head_size * shape.n_kv_heads
    yield Tensor("token_embd.weight", (shape.vocab, width), "F16", embedding)
    for blk in (f"blk.{layer}." for layer in range(shape.n_layers)):
        yield norm(blk + "attn_norm.weight", width)
        yield ternary(blk + "attn_q.weight", width, width)
        yield ternary(blk + "attn_k.weight", kv_width, width)
        yield ternary(blk + "attn_v.weight", kv_width, width)
        yield norm(blk + "attn_sub_norm.weight", width)
        yield ternary(blk + "attn_output.weight", width, width)
        yield norm(blk + "ffn_norm.weight", width)
        yield ternary(blk + "ffn_gate.weight", ffn, width)
        yield ternary(blk + "ffn_up.weight", ffn, width)
        yield norm(blk + "ffn_sub_norm.weight", ffn)
        yield ternary(blk + "ffn_down.weight", width, ffn)
    yield norm("output_norm.weight", width)


def weights(shape: Shape) -> dict[str, Array | Ternary]:
    """The values of all tensors by name."""
    return {tensor.name: tensor.value() for tensor in tensors(shape)}


def metadata(shape: Shape, architecture: str = "bitnet-b1.58") -> dict[str, Scalar]:
    """The metadata keys of bitnet.cpp's files, without a vocabulary."""
    own: dict[str, Scalar] = {
        "context_length": 4096,
        "embedding_length": shape.width,
        "block_count": shape.n_layers,
        "feed_forward_length": shape.ffn,
        "attention.head_count": shape.n_heads,
        "attention.head_count_kv": shape.n_kv_heads,
        "attention.layer_norm_rms_epsilon": shape.eps,
        "rope.freq_base": shape.rope_base,
        "rope.dimension_count": shape.head_size,
        "vocab_size": shape.vocab,
    }
    general: dict[str, Scalar] = {"general.architecture": architecture, "general.file_type": FILE_TYPE_I2_S}
    return general | {f"{architecture}.{suffix}": value for suffix, value in own.items()}


def small_bpe(n_tokens: int) -> Keys:
    """A byte-level BPE that merges 1, 2, 3 and 4 to one token, if the pre-tokenizer keeps them together."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    tokens = [characters[byte] for byte in range(256)] + ["12", "123", "1234"]
    special = [f"<|special_{i}|>" for i in range(n_tokens - len(tokens))]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens + special,
        "tokenizer.ggml.token_type": [1] * len(tokens) + [3] * len(special),
        "tokenizer.ggml.merges": ["1 2", "12 3", "123 4"],
        "tokenizer.ggml.bos_token_id": len(tokens),
        "tokenizer.ggml.eos_token_id": len(tokens) + 1,
    }


def write(path: Path, keys: Keys, values: Iterable[Tensor], vocabulary: Path | None = None) -> Path:
    """Write a GGUF file, one tensor in memory at a time; `vocabulary` is a file to take the tokenizer from."""
    values = list(values)
    with GGUFWriter(path) as out:
        if vocabulary is not None:
            with GGUFFile.open(vocabulary) as source:
                out.copy_metadata(source.metadata)
                for key in source.metadata:
                    if not key.startswith("tokenizer.") or key == "tokenizer.ggml.pre":
                        out.remove(key)
        for key, value in keys.items():
            out.add(key, value)
        for tensor in values:
            out.declare(tensor.name, tensor.shape[::-1], named_type(tensor.type))
        for tensor in values:
            value = tensor.value()
            out.write(tensor.name, value.i2_s() if isinstance(value, Ternary) else value)
    return path


def main() -> None:
    """Write a file of the shape of BitNet b1.58 2B-4T."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--vocab", type=Path, required=True, help="a GGUF file with the tokenizer of Llama 3")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    write(arguments.output, metadata(BITNET_2B_4T), tensors(BITNET_2B_4T), arguments.vocab)


if __name__ == "__main__":
    main()
