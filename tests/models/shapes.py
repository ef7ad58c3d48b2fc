"""Models of real shapes with random weights, written as a stream: their memory is that of the published ones.

    write_shape(tmp_path / "phi3.gguf", PHI3_MINI, "Q4_K", vocabularies / "ggml-vocab-phi-3.gguf")

A weight matrix is one slab of random blocks over and over, so gigabytes take seconds; what it answers is noise.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.quant_types import QuantType, named_type
from edgellm.formats.ternary import i2_s_tail

SLAB_BLOCKS = 8192
# Where the float16 scales lie in a block; everything else in it may be any bits.
SCALES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "F16": (),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
    "I2_S": (),
}


@dataclass(frozen=True)
class Shape:
    """The numbers that a Llama or a Phi-3 is made of."""

    architecture: str
    n_layers: int
    width: int
    ffn: int
    n_heads: int
    n_kv_heads: int
    context: int


# 7.2 billion parameters: a file of 7 GB in 8 bits.
LLAMA_7B = Shape("llama", 32, 4096, 14336, 32, 8, 32768)
PHI3_MINI = Shape("phi3", 32, 3072, 8192, 32, 32, 131072)
SMALL_PHI3 = Shape("phi3", 6, 1024, 2816, 16, 16, 131072)
SMALL_LLAMA = Shape("llama", 8, 768, 2048, 12, 4, 8192)


def write_shape(path: Path, shape: Shape, kind: str, vocabulary: Path, *, head: str = "Q6_K") -> Path:
    """A GGUF file of that shape whose matrices have the type `kind`, with the tokenizer of another file."""
    with GGUFWriter(path) as out:
        for name, dimensions, quant_type in _declare(out, shape, kind, vocabulary, head):
            out.write(name, _weights(dimensions, quant_type))
    return path


def header_of(shape: Shape, kind: str, vocabulary: Path, *, head: str = "Q6_K") -> tuple[bytes, int]:
    """The header of such a file, and the size that the whole file would have."""
    out = GGUFWriter(Path("never.gguf"))
    _declare(out, shape, kind, vocabulary, head)
    return out._header(), out.nbytes


def _declare(
    out: GGUFWriter, shape: Shape, kind: str, vocabulary: Path, head: str
) -> list[tuple[str, tuple[int, ...], QuantType]]:
    keys = {"context_length": shape.context, "embedding_length": shape.width, "block_count": shape.n_layers}
    keys |= {"feed_forward_length": shape.ffn, "attention.head_count": shape.n_heads}
    keys |= {"attention.head_count_kv": shape.n_kv_heads, "rope.dimension_count": shape.width // shape.n_heads}
    with GGUFFile.open(vocabulary) as source:
        n_vocab = len(source.get_array("tokenizer.ggml.tokens"))
        out.copy_metadata(source.metadata)
        for key in source.metadata:
            if not key.startswith("tokenizer."):
                out.remove(key)
    out.add("general.architecture", shape.architecture)
    for key, value in keys.items():
        out.add(f"{shape.architecture}.{key}", value)
    out.add(f"{shape.architecture}.attention.layer_norm_rms_epsilon", 1e-5)
    tensors = list(_tensors(shape, shape.width // shape.n_heads * shape.n_kv_heads, n_vocab, kind, head))
    for name, dimensions, quant_type in tensors:
        out.declare(name, dimensions, quant_type)
    return tensors


def _tensors(
    shape: Shape, kv: int, n_vocab: int, kind: str, head: str
) -> Iterator[tuple[str, tuple[int, ...], QuantType]]:
    matrix, norm = named_type(kind), named_type("F32")
    width, ffn = shape.width, shape.ffn
    yield "token_embd.weight", (width, n_vocab), named_type(head) if matrix.ternary else matrix
    for blk in (f"blk.{layer}." for layer in range(shape.n_layers)):
        yield blk + "attn_norm.weight", (width,), norm
        if shape.architecture == "phi3":
            yield blk + "attn_qkv.weight", (width, width + 2 * kv), matrix
            yield blk + "ffn_up.weight", (width, 2 * ffn), matrix
        else:
            yield blk + "attn_q.weight", (width, width), matrix
            yield blk + "attn_k.weight", (width, kv), matrix
            yield blk + "attn_v.weight", (width, kv), matrix
            yield blk + "ffn_gate.weight", (width, ffn), matrix
            yield blk + "ffn_up.weight", (width, ffn), matrix
        yield blk + "attn_output.weight", (width, width), matrix
        yield blk + "ffn_norm.weight", (width,), norm
        yield blk + "ffn_down.weight", (ffn, width), matrix
    yield "output_norm.weight", (width,), norm
    yield "output.weight", (width, n_vocab), named_type(head)


def _weights(dimensions: tuple[int, ...], quant_type: QuantType) -> Iterator[npt.NDArray[np.generic]]:
    if quant_type.name == "F32":
        yield np.ones(dimensions, np.float32)
        return
    n_blocks = int(np.prod(dimensions)) // quant_type.block_size
    slab = _slab(quant_type)
    for start in range(0, n_blocks, SLAB_BLOCKS):
        yield slab[: n_blocks - start]
    if quant_type.name == "I2_S":
        yield np.frombuffer(i2_s_tail(0.01), np.uint8)


def _slab(quant_type: QuantType) -> npt.NDArray[np.uint8]:
    random = np.random.default_rng(5)
    if quant_type.name == "F16":
        values = random.standard_normal((SLAB_BLOCKS, 1), np.float32) * np.float32(0.02)
        return values.astype(np.float16).view(np.uint8)
    slab = random.integers(0, 256, (SLAB_BLOCKS, quant_type.block_bytes), np.uint8)
    if quant_type.ternary:
        slab &= 0x55  # no code 3
    for place in SCALES[quant_type.name]:
        scale = random.uniform(1e-5, 1e-4, (SLAB_BLOCKS, 1)).astype(np.float16)
        slab[:, place : place + 2] = scale.view(np.uint8)
    return slab
