"""BitNetForCausalLM (Microsoft's 2B-4T) and BitnetForCausalLM (1bitLLM): Llama with a norm inside each branch.

The attention output and the gated product are normalised before their last projection. 2B-4T uses squared
ReLU and 1bitLLM's models use SiLU, so the file must say which. The engine rotates queries and keys by halves,
as transformers does, so their rows keep their order. The output head is always the embedding.

    plan = read(source, Packed(source, inverted=False))
"""

from __future__ import annotations

from edgellm.errors import UnsupportedModel
from edgellm.weights.convert.checkpoints.decoder import (
    Sizes,
    add_ends,
    add_feed_forward,
    add_sizes,
    limit_to_window,
    require_activation,
)
from edgellm.weights.convert.checkpoints.plan import ConversionPlan, PlanBuilder, Storage
from edgellm.weights.convert.checkpoints.source import Source


def read(source: Source, storage: Storage) -> ConversionPlan:
    """Plan a BitNet; `storage` reads its weights, which are packed or master weights."""
    config = source.config
    sizes = Sizes.read(config)
    known = ("relu2", "silu") if config.items("architectures") == ["BitNetForCausalLM"] else ("silu", "relu2")
    activation = require_activation(config, *known)
    tied = config.flag("tie_word_embeddings", True)
    if "lm_head.weight" in source and not tied:
        why = "its output head is not the embedding, and the engine's bitnet supports no separate head"
        raise UnsupportedModel(f"{source.name} cannot be converted", why=why)
    build = PlanBuilder(source, "bitnet", storage)
    add_sizes(build, sizes)
    limit_to_window(build, config, sizes, default=True)
    if (bits := (config.integer("weight_bits", 1), config.integer("input_bits", 8))) != (1, 8):
        build.refuse(f"weight_bits and input_bits are {bits[0]} and {bits[1]}; the engine computes with 1 and 8")
    build.key("hidden_activation", activation)
    add_ends(build, sizes, tied=True)
    for i in range(sizes.n_layer):
        _add_layer(source, build, sizes, f"model.layers.{i}", f"blk.{i}")
    # bitnet.cpp, the only other reader of I2_S, uses SiLU for "bitnet" and squared ReLU for "bitnet-b1.58".
    return build.finish(renamed={"I2_S": "bitnet-b1.58"} if activation == "relu2" else {})


def _add_layer(source: Source, build: PlanBuilder, sizes: Sizes, layer: str, block: str) -> None:
    n_embd = sizes.n_embd
    first = f"{layer}.self_attn.attn_sub_norm.weight" in source  # otherwise 1bitLLM's names
    attention_norm, gate_norm = ("attn_sub_norm", "ffn_sub_norm") if first else ("inner_attn_ln", "ffn_layernorm")
    build.vector(f"{layer}.input_layernorm.weight", f"{block}.attn_norm.weight", n_embd)
    build.matrix(f"{layer}.self_attn.q_proj", f"{block}.attn_q", (n_embd, n_embd))
    build.matrix(f"{layer}.self_attn.k_proj", f"{block}.attn_k", (sizes.n_kv, n_embd))
    build.matrix(f"{layer}.self_attn.v_proj", f"{block}.attn_v", (sizes.n_kv, n_embd))
    build.vector(f"{layer}.self_attn.{attention_norm}.weight", f"{block}.attn_sub_norm.weight", n_embd)
    build.matrix(f"{layer}.self_attn.o_proj", f"{block}.attn_output", (n_embd, n_embd))
    build.vector(f"{layer}.post_attention_layernorm.weight", f"{block}.ffn_norm.weight", n_embd)
    build.vector(f"{layer}.mlp.{gate_norm}.weight", f"{block}.ffn_sub_norm.weight", sizes.n_ff)
    add_feed_forward(build, sizes, layer, block)
