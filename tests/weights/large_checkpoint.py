"""Writes BitNet checkpoints of any size, tensor by tensor, to measure the memory use of a conversion.

    write_bitnet(directory, BITNET_2B_4T, packed=False)      # 4.8 GB of bfloat16 master weights

One block of random bytes is repeated, so that only the disk limits the speed.
"""

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.engine.bitnet_file import Shape
from tests.weights import tokenizer_files

BLOCK = 1 << 20
BYTES = {"BF16": 2, "U8": 1}
Entry = tuple[str, str, tuple[int, ...]]


def write_bitnet(directory: Path, shape: Shape, *, packed: bool) -> Path:
    """Write a BitNetForCausalLM with packed or master weights, and return the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    mode = {"quant_method": "bitnet", "linear_class": "autobitlinear"}
    config = {
        "architectures": ["BitNetForCausalLM"],
        "hidden_size": shape.width,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.n_layers,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "max_position_embeddings": 4096,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.rope_base,
        "hidden_act": "relu2",
        "tie_word_embeddings": True,
        "quantization_config": mode | {"quantization_mode": "offline" if packed else "online"},
    }
    (directory / "config.json").write_text(json.dumps(config))
    tokenizer_files.write_llama3(directory)
    _write(directory / "model.safetensors", list(_tensors(shape, packed=packed)))
    return directory


def _tensors(shape: Shape, *, packed: bool) -> Iterator[Entry]:
    width, ffn, kv = shape.width, shape.ffn, shape.head_size * shape.n_kv_heads
    yield "model.embed_tokens.weight", "BF16", (shape.vocab, width)
    yield "model.norm.weight", "BF16", (width,)
    attention = {"q": (width, width), "k": (kv, width), "v": (kv, width), "o": (width, width)}
    linear = {f"self_attn.{name}_proj": size for name, size in attention.items()}
    linear |= {"mlp.gate_proj": (ffn, width), "mlp.up_proj": (ffn, width), "mlp.down_proj": (width, ffn)}
    norms = {"input_layernorm": width, "post_attention_layernorm": width}
    norms |= {"self_attn.attn_sub_norm": width, "mlp.ffn_sub_norm": ffn}
    for layer in (f"model.layers.{i}." for i in range(shape.n_layers)):
        for name, size in norms.items():
            yield f"{layer}{name}.weight", "BF16", (size,)
        for name, (rows, columns) in linear.items():
            if packed:
                yield f"{layer}{name}.weight", "U8", (rows // 4, columns)
                yield f"{layer}{name}.weight_scale", "BF16", (1,)
            else:
                yield f"{layer}{name}.weight", "BF16", (rows, columns)


def _write(path: Path, tensors: list[Entry]) -> None:
    random = np.random.default_rng(17)
    normal = random.standard_normal(BLOCK // 2, np.float32) + np.float32(0.01)
    pairs = random.integers(0, 3, (4, BLOCK), np.uint8)
    blocks = {
        "BF16": (normal.view(np.uint32) >> 16).astype("<u2").tobytes(),
        "U8": (pairs[0] | pairs[1] << 2 | pairs[2] << 4 | pairs[3] << 6).tobytes(),
    }
    header, end = {}, 0
    for name, dtype, shape in tensors:
        start, end = end, end + math.prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, dtype, shape in tensors:
            left = math.prod(shape) * BYTES[dtype]
            if name.endswith("_scale"):  # must be positive
                file.write(b"\x80\x3f")
                continue
            for _ in range(left // BLOCK):
                file.write(blocks[dtype])
            file.write(blocks[dtype][: left % BLOCK])
