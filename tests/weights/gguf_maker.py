"""Tiny GGUF models to quantize: a plain Llama whose rows are whole K-quant blocks, a BitNet, an importance matrix."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_metadata import Scalar
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.quant_types import named_type
from tests.engine import bitnet_file

WIDTH, FFN, LAYERS, VOCAB, HEADS, KV_HEADS = 256, 512, 4, 320, 4, 2
NUMPY = {"F32": np.float32, "F16": np.float16}


def write_llama(
    path: Path,
    *,
    kind: str = "F16",
    ffn: int = FFN,
    tied: bool = True,
    spoil: Mapping[str, float] | None = None,
    keys: Mapping[str, Scalar] | None = None,
) -> Path:
    """Write a Llama with normally distributed weights; `spoil` puts a number into a tensor, `keys` adds metadata."""
    random = np.random.default_rng(11)
    kv_width = WIDTH // HEADS * KV_HEADS
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCAB, WIDTH), "output_norm.weight": (WIDTH,)}
    if not tied:
        shapes["output.weight"] = (VOCAB, WIDTH)
    for blk in (f"blk.{layer}." for layer in range(LAYERS)):
        shapes |= {blk + "attn_norm.weight": (WIDTH,), blk + "ffn_norm.weight": (WIDTH,)}
        shapes |= {blk + f"attn_{name}.weight": (WIDTH, WIDTH) for name in ("q", "output")}
        shapes |= {blk + f"attn_{name}.weight": (kv_width, WIDTH) for name in ("k", "v")}
        shapes |= {blk + "ffn_gate.weight": (ffn, WIDTH), blk + "ffn_up.weight": (ffn, WIDTH)}
        shapes[blk + "ffn_down.weight"] = (WIDTH, ffn)
    sizes = {"context_length": 512, "embedding_length": WIDTH, "block_count": LAYERS, "feed_forward_length": ffn}
    sizes |= {"attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS}
    with GGUFWriter(path) as out:
        out.add("general.architecture", "llama")
        for name, size in sizes.items():
            out.add(f"llama.{name}", size)
        out.add("llama.attention.layer_norm_rms_epsilon", 1e-5)
        for key, value in {**bitnet_file.small_bpe(VOCAB), **(keys or {})}.items():
            out.add(key, value)
        for name, shape in shapes.items():
            out.declare(name, shape[::-1], named_type(kind if len(shape) == 2 else "F32"))
        for name, shape in shapes.items():
            values = random.standard_normal(shape, np.float32) * np.float32(0.1 if len(shape) == 2 else 1)
            values.flat[5] = (spoil or {}).get(name, values.flat[5])
            out.write(name, values.astype(NUMPY[kind] if len(shape) == 2 else np.float32))
    return path


def write_bitnet(path: Path, *, ffn: int = 512, half_scales: bool = True) -> Path:
    """Write a BitNet in bitnet.cpp's format, I2_S with an F16 embedding; `half_scales` makes its scales fp16."""
    shape = bitnet_file.Shape(n_layers=2, width=256, ffn=ffn, n_heads=4, n_kv_heads=2, vocab=VOCAB)

    def rounded(tensor: bitnet_file.Tensor) -> bitnet_file.Tensor:
        value = tensor.value()
        if half_scales and isinstance(value, bitnet_file.Ternary):
            value = bitnet_file.Ternary(value.codes, np.float32(np.float16(value.scale)))
        return tensor._replace(value=lambda: value)

    keys = {**bitnet_file.metadata(shape), **bitnet_file.small_bpe(VOCAB)}
    return bitnet_file.write(path, keys, [rounded(tensor) for tensor in bitnet_file.tensors(shape)])


def write_imatrix(path: Path, model: Path, *, change: Mapping[str, npt.NDArray[np.float32]] | None = None) -> Path:
    """Write a random importance matrix for all matrices except the embedding; `change` replaces tensors."""
    random = np.random.default_rng(3)
    with GGUFFile.open(model) as gguf:
        rows = {name: info.shape[0] for name, info in gguf.tensors.items() if len(info.shape) == 2}
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    for name, columns in rows.items():
        if name != "token_embd.weight":
            tensors[f"{name}.in_sum2"] = random.uniform(0.01, 9, (1, columns)).astype(np.float32)
            tensors[f"{name}.counts"] = np.array([[32]], np.float32)
    tensors |= change or {}
    with GGUFWriter(path) as out:
        out.add("general.type", "imatrix")
        out.add("imatrix.datasets", ["words.txt"])
        out.add("imatrix.chunk_count", 4)
        out.add("imatrix.chunk_size", 512)
        for name, values in tensors.items():
            out.declare(name, values.shape[::-1], named_type("F32"))
        for name, values in tensors.items():
            out.write(name, values)
    return path
