"""The embedded SmolLM2 as the checkpoint that it once was: weights in F16 under transformers' names, tokenizer, config.

write_checkpoint(Path("smollm2.gguf"), Path("checkpoint"), codec)
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from edgellm.engine.quantize import Quantizer
from edgellm.formats.gguf_file import GGUFFile
from edgellm.training.base_model import read_gguf
from edgellm.weights.convert.checkpoints.rope import interleaved
from tests.weights import tokenizer_files as files

_NAMES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_PARTS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip


def write_checkpoint(source: Path, directory: Path, codec: Quantizer) -> Path:
    """Write the directory; the weights are those of the file, rounded to F16."""
    directory.mkdir()
    with GGUFFile.open(source) as gguf:
        numbers = {key: gguf.get_int(f"llama.{key}") for key in ("block_count", "embedding_length", "context_length")}
        heads, kv_heads = (gguf.get_int(f"llama.attention.head_count{kv}") for kv in ("", "_kv"))
        head = numbers["embedding_length"] // heads
        config = {
            "architectures": ["LlamaForCausalLM"], "hidden_size": numbers["embedding_length"],
            "intermediate_size": gguf.get_int("llama.feed_forward_length"),
            "num_hidden_layers": numbers["block_count"], "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "vocab_size": gguf.get_int("llama.vocab_size"), "max_position_embeddings": numbers["context_length"],
            "rms_norm_eps": 1e-5, "rope_theta": gguf.get_float("llama.rope.freq_base"), "tie_word_embeddings": True,
            "bos_token_id": 1, "eos_token_id": 2,
        }  # fmt: skip
        tokens, kinds, merges = (
            list(gguf.metadata[f"tokenizer.ggml.{key}"]) for key in ("tokens", "token_type", "merges")
        )
        template = gguf.get_str("tokenizer.chat_template")
    files.write_json(directory, "config.json", config)
    _write_tokenizer(directory, tokens, kinds, merges, template)
    tensors = {}
    for name, each in read_gguf(source, codec).weights.items():
        values = each.values.astype(np.float16)
        if (found := re.search(r"attn_(q|k)\.weight", name)) is not None:
            values = values[np.argsort(interleaved(heads if found[1] == "q" else kv_heads, head))]
        tensors[_stored(name)] = np.ascontiguousarray(values)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return directory


def _stored(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{_PARTS[part]}.weight"


def _write_tokenizer(directory: Path, tokens: list[str], kinds: list[int], merges: list[str], template: str) -> None:
    special = [i for i, kind in enumerate(kinds) if kind != 1]
    tokenizer: dict[str, Any] = {
        "added_tokens": [files.added(i, tokens[i]) for i in special],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [files.DIGITS, files.GPT2_WORDS]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {text: i for i, text in enumerate(tokens)}, "merges": merges},
    }
    files.write_json(directory, "tokenizer.json", tokenizer)
    ends = {"bos_token": tokens[1], "eos_token": tokens[2], "chat_template": template}
    files.write_json(directory, "tokenizer_config.json", ends)
