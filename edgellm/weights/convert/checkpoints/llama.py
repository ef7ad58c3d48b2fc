"""LlamaForCausalLM and models with the same graph: SmolLM2, Mistral, Falcon3, ternary "bitlinear" models, Bonsai.

The engine's `llama` rotates neighbouring rows of a head, but transformers rotates its halves, so query and key
rows are reordered. All other tensors are only renamed.

    plan = read(source, Dense(source))
"""

from __future__ import annotations

from edgellm.weights.convert.checkpoints.decoder import (
    Sizes,
    add_ends,
    add_feed_forward,
    add_sizes,
    is_tied,
    limit_to_window,
    may_have_bias,
    require_activation,
)
from edgellm.weights.convert.checkpoints.plan import ConversionPlan, PlanBuilder, Storage
from edgellm.weights.convert.checkpoints.rope import interleaved, llama3_factors
from edgellm.weights.convert.checkpoints.source import Source


def read(source: Source, storage: Storage) -> ConversionPlan:
    """Plan a Llama; `storage` reads its linear layers."""
    require_activation(source.config, "silu")
    sizes = Sizes.read(source.config)
    build = PlanBuilder(source, "llama", storage)
    add_sizes(build, sizes, kinds=("default", "linear", "yarn", "llama3"))
    limit_to_window(build, source.config, sizes, default=True)
    add_ends(build, sizes, tied=is_tied(source))
    if sizes.rope.kind == "llama3":
        build.constant("rope_freqs.weight", llama3_factors(sizes.rope, sizes.head_dim))
    if sizes.rope.yarn and not sizes.rope.yarn.is_the_engines:
        build.constant("rope_freqs.weight", sizes.rope.yarn.divisors(sizes.rope.theta, sizes.head_dim))
    in_attention = may_have_bias(source, "attention_bias", "model.layers.0.self_attn.q_proj")
    in_mlp = may_have_bias(source, "mlp_bias", "model.layers.0.mlp.up_proj")
    for i in range(sizes.n_layer):
        _add_layer(build, sizes, f"model.layers.{i}", f"blk.{i}", in_attention=in_attention, in_mlp=in_mlp)
    return build.finish()


def _add_layer(build: PlanBuilder, sizes: Sizes, layer: str, block: str, *, in_attention: bool, in_mlp: bool) -> None:
    n_embd, query_order = sizes.n_embd, interleaved(sizes.n_head, sizes.head_dim)
    key_order = interleaved(sizes.n_head_kv, sizes.head_dim)
    build.vector(f"{layer}.input_layernorm.weight", f"{block}.attn_norm.weight", n_embd)
    q, kv, bias = (sizes.n_q, n_embd), (sizes.n_kv, n_embd), in_attention
    build.matrix(f"{layer}.self_attn.q_proj", f"{block}.attn_q", q, order=query_order, bias=bias)
    build.matrix(f"{layer}.self_attn.k_proj", f"{block}.attn_k", kv, order=key_order, bias=bias)
    build.matrix(f"{layer}.self_attn.v_proj", f"{block}.attn_v", kv, bias=bias)
    build.matrix(f"{layer}.self_attn.o_proj", f"{block}.attn_output", (n_embd, sizes.n_q), bias=bias)
    build.vector(f"{layer}.post_attention_layernorm.weight", f"{block}.ffn_norm.weight", n_embd)
    add_feed_forward(build, sizes, layer, block, bias=in_mlp)
