"""Adapters for a model, as the engine reads them: GGUF as it is, PEFT's safetensors converted.

ready = ready_adapters([Adapter(Path("my-peft-lora"))], Path("smollm2.gguf"), cache)
ready[0].path      # a GGUF file in the cache, written once
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgellm.engine.adapters import Adapter, check_adapter
from edgellm.errors import CorruptFile, ModelNotFound, UnsupportedModel
from edgellm.files import sha256_of
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_split import part_paths
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.quant_types import named_type
from edgellm.formats.safetensors_file import SafetensorsFile
from edgellm.weights.convert.checkpoints.rope import interleaved
from edgellm.weights.convert.json_file import JsonFile

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Increment when the same files are converted to other bytes.
_VERSION = 1
_NAME = re.compile(r"base_model\.model\.model\.layers\.(\d{1,4})\.(\w+\.\w+)\.lora_([AB])(?:\.default)?\.weight")
_LAYERS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
_SUFFIX = {"A": "lora_a", "B": "lora_b"}
# What an adapter may ask for that is more than a low-rank product, and the values that ask for nothing.
_NEUTRAL = {
    "use_dora": (False,), "bias": ("none",), "modules_to_save": ([],), "alpha_pattern": ({},),
    "fan_in_fan_out": (False,), "lora_bias": (False,), "trainable_token_indices": ([], {}),
}  # fmt: skip
_FLOATS = ("F32", "F16", "BF16")


def ready_adapters(adapters: Sequence[Adapter], base: Path, cache: Path) -> tuple[Adapter, ...]:
    """Check adapters against the model's file, and convert those of PEFT into `cache`.

    Raises:
        UsageError: one belongs to another model.
        CorruptFile, UnsupportedModel: one is damaged, or asks for more than a low-rank product.
    """
    first, ready = part_paths(base)[0], []
    for adapter in adapters:
        path = adapter.path
        if path.is_dir() or path.suffix == ".safetensors":
            path = _converted(path, first, cache)
        check_adapter(path, first)
        ready.append(replace(adapter, path=path.absolute()))
    return tuple(ready)


def convert_adapter(source: Path, base: Path, output: Path) -> None:
    """Convert PEFT's directory, or its safetensors file, to a GGUF adapter for the model in `base`.

    Raises:
        ModelNotFound, CorruptFile, UnsupportedModel: as `ready_adapters`.
    """
    directory = source if source.is_dir() else source.parent
    config = JsonFile.read_if_there(directory / CONFIG)
    weights = source / WEIGHTS if source.is_dir() else source
    if not config.values or not weights.is_file():
        why = f"it needs {CONFIG} and {WEIGHTS}"
        raise ModelNotFound(f"there is no PEFT adapter in {directory}", why=why, path=str(directory))
    alpha = _alpha(config)
    arrays = _arrays(SafetensorsFile.open(weights), base)
    output.parent.mkdir(parents=True, exist_ok=True)
    with GGUFFile.open(base) as model, GGUFWriter(output) as writer:
        writer.add("general.architecture", model.architecture)
        writer.add("general.type", "adapter")
        writer.add("adapter.type", "lora")
        writer.add("adapter.lora.alpha", alpha)
        for name, values in arrays.items():
            writer.declare(name, values.shape[::-1], named_type("F32"))
        for name, values in arrays.items():
            writer.write(name, values)


def _converted(source: Path, base: Path, cache: Path) -> Path:
    files = [source / WEIGHTS, source / CONFIG] if source.is_dir() else [source, source.parent / CONFIG]
    with GGUFFile.open(base) as model:
        shape = [model.architecture, *(model.get_int(model.key(f"attention.head_count{kv}"), 0) for kv in ("", "_kv"))]
    text = f"{_VERSION} {shape} " + " ".join(sha256_of(file) for file in files if file.is_file())
    output = cache / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.gguf"
    if not output.is_file():
        convert_adapter(source, base, output)
    return output


def _alpha(config: JsonFile) -> float:
    """The alpha that llama.cpp divides by the rank; `use_rslora` divides by its root."""
    if config.text("peft_type", "LORA") != "LORA":
        raise UnsupportedModel("the adapter cannot be used", why=f"its type is {config.text('peft_type')!r:.40}")
    for key, neutral in _NEUTRAL.items():
        value = config.values.get(key)
        if value is not None and value not in neutral:
            why = f"{CONFIG} has {key} {value!r:.40}, which is more than a low-rank product"
            raise UnsupportedModel("the adapter cannot be used", why=why, key=key)
    rank, alpha = config.integer("r", low=1, high=1 << 16), config.number("lora_alpha")
    rooted = config.flag("use_rslora", False)
    if rooted and config.values.get("rank_pattern"):
        raise UnsupportedModel("the adapter cannot be used", why="it has use_rslora with a rank_pattern")
    config.ignore("rank_pattern")
    return alpha * math.sqrt(rank) if rooted else alpha


def _arrays(weights: SafetensorsFile, base: Path) -> dict[str, np.ndarray]:
    with GGUFFile.open(base) as model:
        architecture = model.architecture
        n_head = model.get_int(model.key("attention.head_count"))
        n_head_kv = model.get_int(model.key("attention.head_count_kv"), n_head)
        head_dim = model.get_int(
            model.key("attention.key_length"), model.get_int(model.key("embedding_length")) // max(1, n_head)
        )
    arrays: dict[str, np.ndarray] = {}
    for name, stored in weights.tensors.items():
        found = _NAME.fullmatch(name)
        if found is None or found[2] not in _LAYERS:
            raise UnsupportedModel("the adapter cannot be used", why=f"its tensor {name:.80} is not known here")
        if stored.dtype not in _FLOATS or len(stored.shape) != 2:
            raise CorruptFile("the adapter is corrupt", why=f"{name:.80} is {stored.dtype} {list(stored.shape)}")
        values = weights.read(name).astype(np.float32)
        if not np.isfinite(values).all():
            raise CorruptFile("the adapter is corrupt", why=f"{name:.80} holds numbers that are not finite")
        part = _LAYERS[found[2]]
        if architecture == "llama" and part in ("attn_q", "attn_k") and found[3] == "B":
            # The engine's llama rotates neighbouring rows of a head, so the rows of the base were reordered.
            heads = n_head if part == "attn_q" else n_head_kv
            if len(values) != heads * head_dim:
                raise CorruptFile("the adapter is for another model", why=f"{name:.80} has {len(values)} rows")
            values = values[interleaved(heads, head_dim)]
        arrays[f"blk.{int(found[1])}.{part}.weight.{_SUFFIX[found[3]]}"] = np.ascontiguousarray(values)
    return arrays
