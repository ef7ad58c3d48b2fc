"""Adapters with random products of low rank, as PEFT writes them and as GGUF files."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.quant_types import named_type
from tests.weights import checkpoint_maker as make
from tests.weights.numpy_models import Shape

Pair = tuple[np.ndarray, np.ndarray]
SHAPE, RANK, ALPHA = Shape(hidden=256, ffn=512, layers=2), 4, 8.0
PARTS = {
    "q": ("self_attn.q_proj", "attn_q"), "k": ("self_attn.k_proj", "attn_k"), "v": ("self_attn.v_proj", "attn_v"),
    "o": ("self_attn.o_proj", "attn_output"), "gate": ("mlp.gate_proj", "ffn_gate"), "up": ("mlp.up_proj", "ffn_up"),
    "down": ("mlp.down_proj", "ffn_down"),
}  # fmt: skip


def pairs(seed: int = 5) -> dict[str, Pair]:
    """A product of low rank for each linear layer, by the names of the numpy models."""
    rng = np.random.default_rng(seed)
    found = {}
    for i in range(SHAPE.layers):
        for part, (rows, columns) in make.matrix_shapes(SHAPE).items():
            down = rng.standard_normal((RANK, columns), np.float32) / np.sqrt(columns)
            up = rng.standard_normal((rows, RANK), np.float32) * 0.3
            found[f"{i}.{part}"] = (down.astype(np.float32), up.astype(np.float32))
    return found


def write_peft(directory: Path, products: Mapping[str, Pair], **config: object) -> Path:
    """PEFT's directory."""
    tensors = {}
    for name, (down, up) in products.items():
        layer, _, part = name.partition(".")
        stem = f"base_model.model.model.layers.{layer}.{PARTS[part][0]}"
        tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
    directory.mkdir()
    make.write_safetensors(directory / "adapter_model.safetensors", tensors)
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "use_dora": False, **config}
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    return directory


def write_adapter(path: Path, tensors: Mapping[str, np.ndarray], **keys: str) -> Path:
    """A GGUF file of these tensors."""
    with GGUFWriter(path) as out:
        for key, value in {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}.items():
            out.add(key, keys.get(key.replace(".", "_"), value))
        out.add("adapter.lora.alpha", 8.0)
        for name, values in tensors.items():
            out.declare(name, values.shape[::-1], named_type("F32"))
        for name, values in tensors.items():
            out.write(name, values)
    return path
