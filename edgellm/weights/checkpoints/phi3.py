"""Phi3ForCausalLM: Llama with fused projections, and for 128k contexts two sets of rotation factors (longrope).

The fused matrices stay fused: queries, keys and values in attn_qkv, gate and up in ffn_up. The engine takes
the long factors when the context is larger than the original 4096, the short ones otherwise, and multiplies
both by one attention factor. It ignores the sliding window of the 4k model: attention there is full.

    plan = read(source, Dense(source))
"""

from __future__ import annotations

import math

import numpy as np

from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.weights.checkpoints.decoder import Sizes, add_ends, add_sizes, is_tied, require_activation
from edgellm.weights.checkpoints.plan import Plan, PlanBuilder, Storage
from edgellm.weights.checkpoints.source import Source


def read(source: Source, storage: Storage) -> Plan:
    """Plan a Phi-3."""
    config = source.config
    require_activation(config, "silu")
    sizes = Sizes.read(config)
    if sizes.n_q != sizes.n_embd:
        why = f"its heads make {sizes.n_q} channels of {sizes.n_embd}, which the engine's phi3 does not know"
        raise UnsupportedModel(f"{source.name} cannot be converted", why=why)
    build = PlanBuilder(source, "phi3", storage)
    add_sizes(build, sizes)
    share = config.number("partial_rotary_factor", sizes.rope.parameters.number("partial_rotary_factor", 1.0))
    n_rot = int(share * sizes.head_dim)
    build.key("rope.dimension_count", n_rot)
    original = config.integer("original_max_position_embeddings", sizes.n_ctx, low=2)
    build.key("rope.scaling.original_context_length", original)
    build.key("attention.sliding_window", config.integer("sliding_window", 0))
    add_ends(build, sizes, tied=is_tied(source))
    if sizes.rope.kind == "longrope":
        _add_longrope(build, sizes, n_rot, original)
    elif sizes.rope.kind != "default":
        raise UnsupportedModel(f"{source.name} cannot be converted", why=f"its rope type is {sizes.rope.kind!r}")
    for i in range(sizes.n_layer):
        _add_layer(build, sizes, f"model.layers.{i}", f"blk.{i}")
    return build.finish()


def _add_longrope(build: PlanBuilder, sizes: Sizes, n_rot: int, original: int) -> None:
    """attention factor = sqrt(1 + ln(context / original) / ln(original))."""
    parameters = sizes.rope.parameters
    stretch = sizes.n_ctx / original
    factor = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
    build.key("rope.scaling.attn_factor", parameters.number("attention_factor", factor))
    for length in ("long", "short"):
        factors = parameters.numbers(f"{length}_factor")
        if len(factors) != n_rot // 2:
            why = f"{length}_factor has {len(factors)} numbers, not {n_rot // 2}"
            raise CorruptFile(f"{parameters.name} is not valid", why=why)
        build.constant(f"rope_factors_{length}.weight", np.array(factors, np.float32))


def _add_layer(build: PlanBuilder, sizes: Sizes, layer: str, block: str) -> None:
    n_embd, n_qkv = sizes.n_embd, sizes.n_q + 2 * sizes.n_kv
    build.vector(f"{layer}.input_layernorm.weight", f"{block}.attn_norm.weight", n_embd)
    build.matrix(f"{layer}.self_attn.qkv_proj", f"{block}.attn_qkv", (n_qkv, n_embd), bias=True)
    build.matrix(f"{layer}.self_attn.o_proj", f"{block}.attn_output", (n_embd, n_embd))
    build.vector(f"{layer}.post_attention_layernorm.weight", f"{block}.ffn_norm.weight", n_embd)
    build.matrix(f"{layer}.mlp.gate_up_proj", f"{block}.ffn_up", (2 * sizes.n_ff, n_embd))
    build.matrix(f"{layer}.mlp.down_proj", f"{block}.ffn_down", (n_embd, sizes.n_ff))
