"""MiniCPMForCausalLM (MiniCPM, MiniCPM4, BitCPM): a Llama with three constants that scale what flows through it.

Embeddings are multiplied by `scale_emb`, each branch by `scale_depth` / sqrt(layers) before it is added, and the last
hidden state by `dim_model_base` / hidden_size. The engine rotates neighbouring rows, as its llama does. MiniCPM4 has
two sets of rotation factors (longrope).

    plan = read(source, Dense(source))
"""

from __future__ import annotations

import math

from edgellm.weights.convert.checkpoints.decoder import (
    Sizes,
    add_ends,
    add_feed_forward,
    add_longrope,
    add_sizes,
    require_activation,
)
from edgellm.weights.convert.checkpoints.plan import ConversionPlan, PlanBuilder, Storage
from edgellm.weights.convert.checkpoints.rope import interleaved
from edgellm.weights.convert.checkpoints.source import Source


def read(source: Source, storage: Storage) -> ConversionPlan:
    """Plan a MiniCPM."""
    config = source.config
    require_activation(config, "silu")
    sizes = Sizes.read(config)
    build = PlanBuilder(source, "minicpm", storage)
    add_sizes(build, sizes, kinds=("default", "linear", "longrope"))
    if (channels := config.integer("kv_channels", sizes.head_dim)) != sizes.head_dim:
        build.refuse(f"kv_channels is {channels}, but its heads have {sizes.head_dim} channels")
    # MiniCPM4 names the number of layers behind its depth scale.
    if (depth := config.integer("mup_denominator", sizes.n_layer)) != sizes.n_layer:
        build.refuse(f"mup_denominator is {depth}; the depth scale of {sizes.n_layer} layers is known, no other")
    build.key("embedding_scale", config.number("scale_emb", 1.0))
    build.key("residual_scale", config.number("scale_depth", 1.0) / math.sqrt(sizes.n_layer))
    build.key("logit_scale", sizes.n_embd / config.integer("dim_model_base", 1, low=1))
    add_ends(build, sizes, tied=config.flag("tie_word_embeddings", True))
    if sizes.rope.kind == "longrope":
        build.key("rope.scaling.type", "longrope")
        build.key("rope.scaling.original_context_length", sizes.rope.n_ctx_original)
        add_longrope(build, sizes, sizes.head_dim)
    for i in range(sizes.n_layer):
        _add_layer(build, sizes, f"model.layers.{i}", f"blk.{i}")
    return build.finish()


def _add_layer(build: PlanBuilder, sizes: Sizes, layer: str, block: str) -> None:
    n_embd = sizes.n_embd
    query_order, key_order = (interleaved(n, sizes.head_dim) for n in (sizes.n_head, sizes.n_head_kv))
    build.vector(f"{layer}.input_layernorm.weight", f"{block}.attn_norm.weight", n_embd)
    build.matrix(f"{layer}.self_attn.q_proj", f"{block}.attn_q", (sizes.n_q, n_embd), order=query_order)
    build.matrix(f"{layer}.self_attn.k_proj", f"{block}.attn_k", (sizes.n_kv, n_embd), order=key_order)
    build.matrix(f"{layer}.self_attn.v_proj", f"{block}.attn_v", (sizes.n_kv, n_embd))
    build.matrix(f"{layer}.self_attn.o_proj", f"{block}.attn_output", (n_embd, sizes.n_q))
    build.vector(f"{layer}.post_attention_layernorm.weight", f"{block}.ffn_norm.weight", n_embd)
    add_feed_forward(build, sizes, layer, block)
