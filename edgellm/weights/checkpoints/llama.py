"""LlamaForCausalLM and what shares its graph: SmolLM2, Mistral, Falcon3, ternary "bitlinear" models, Bonsai.

The engine's `llama` rotates neighbouring rows of a head, transformers rotates its halves: query and key rows
change places. Everything else is renamed.

    plan = read(source, Dense(source))
"""

from __future__ import annotations

from edgellm.weights.checkpoints.decoder import (
    Sizes,
    add_ends,
    add_feed_forward,
    add_sizes,
    is_tied,
    require_activation,
)
from edgellm.weights.checkpoints.plan import Plan, PlanBuilder, Storage
from edgellm.weights.checkpoints.rope import interleaved, llama3_factors
from edgellm.weights.checkpoints.source import Source


def read(source: Source, storage: Storage) -> Plan:
    """Plan a Llama; `storage` says how its linear layers are kept."""
    require_activation(source.config, "silu")
    sizes = Sizes.read(source.config)
    build = PlanBuilder(source, "llama", storage)
    add_sizes(build, sizes)
    add_ends(build, sizes, tied=is_tied(source))
    if sizes.rope.kind == "llama3":
        build.constant("rope_freqs.weight", llama3_factors(sizes.rope, sizes.head_dim))
    for i in range(sizes.n_layer):
        _add_layer(build, sizes, f"model.layers.{i}", f"blk.{i}")
    return build.finish()


def _add_layer(build: PlanBuilder, sizes: Sizes, layer: str, block: str) -> None:
    n_embd, query_order = sizes.n_embd, interleaved(sizes.n_head, sizes.head_dim)
    key_order = interleaved(sizes.n_head_kv, sizes.head_dim)
    build.vector(f"{layer}.input_layernorm.weight", f"{block}.attn_norm.weight", n_embd)
    build.matrix(f"{layer}.self_attn.q_proj", f"{block}.attn_q", (sizes.n_q, n_embd), order=query_order, bias=True)
    build.matrix(f"{layer}.self_attn.k_proj", f"{block}.attn_k", (sizes.n_kv, n_embd), order=key_order, bias=True)
    build.matrix(f"{layer}.self_attn.v_proj", f"{block}.attn_v", (sizes.n_kv, n_embd), bias=True)
    build.matrix(f"{layer}.self_attn.o_proj", f"{block}.attn_output", (n_embd, sizes.n_q), bias=True)
    build.vector(f"{layer}.post_attention_layernorm.weight", f"{block}.ffn_norm.weight", n_embd)
    add_feed_forward(build, sizes, layer, block, bias=True)
