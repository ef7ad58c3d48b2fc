"""Phi3ForCausalLM: Llama with fused projections, and for 128k contexts two sets of rotation factors (longrope).

The fused matrices stay fused: queries, keys and values in attn_qkv, gate and up in ffn_up. The engine uses the
long factors when the context exceeds the original 4096 and the short ones otherwise, with the same attention
factor for both. It ignores the sliding window of the 4k model and computes full attention.

    plan = read(source, Dense(source))
"""

from __future__ import annotations

from edgellm.weights.convert.checkpoints.decoder import (
    Sizes,
    add_ends,
    add_longrope,
    add_sizes,
    is_tied,
    require_activation,
    require_full_width,
)
from edgellm.weights.convert.checkpoints.plan import ConversionPlan, PlanBuilder, Storage
from edgellm.weights.convert.checkpoints.source import Source


def read(source: Source, storage: Storage) -> ConversionPlan:
    """Plan a Phi-3."""
    config = source.config
    require_activation(config, "silu")
    sizes = Sizes.read(config)
    require_full_width(source, sizes, "phi3")
    build = PlanBuilder(source, "phi3", storage)
    add_sizes(build, sizes, kinds=("default", "longrope"), partial=True)
    n_rot = int(sizes.rope.partial * sizes.head_dim)
    build.key("rope.dimension_count", n_rot)
    build.key("rope.scaling.original_context_length", sizes.rope.n_ctx_original)
    window = config.integer("sliding_window", 0)
    build.key("attention.sliding_window", window)
    if 0 < window < sizes.n_ctx:
        build.note(f"the engine ignores the sliding window: beyond {window:,} tokens it sees more than the model did")
    add_ends(build, sizes, tied=is_tied(source))
    if sizes.rope.kind == "longrope":
        add_longrope(build, sizes, n_rot)
    for i in range(sizes.n_layer):
        _add_layer(build, sizes, f"model.layers.{i}", f"blk.{i}")
    return build.finish()


def _add_layer(build: PlanBuilder, sizes: Sizes, layer: str, block: str) -> None:
    n_embd, n_qkv = sizes.n_embd, sizes.n_q + 2 * sizes.n_kv
    build.vector(f"{layer}.input_layernorm.weight", f"{block}.attn_norm.weight", n_embd)
    build.matrix(f"{layer}.self_attn.qkv_proj", f"{block}.attn_qkv", (n_qkv, n_embd), bias=True)
    build.matrix(f"{layer}.self_attn.o_proj", f"{block}.attn_output", (n_embd, n_embd))
    build.vector(f"{layer}.post_attention_layernorm.weight", f"{block}.ffn_norm.weight", n_embd)
    build.matrix(f"{layer}.mlp.gate_up_proj", f"{block}.ffn_up", (2 * sizes.n_ff, n_embd))
    build.matrix(f"{layer}.mlp.down_proj", f"{block}.ffn_down", (n_embd, sizes.n_ff))
