"""Qwen: QWenLMHeadModel (the first, with its own names), Qwen2ForCausalLM (biases) and Qwen3ForCausalLM (head norms).

None needs its rows reordered. The first Qwen fuses queries, keys and values into c_attn, calls the gate w2 and the up
projection w1, counts both in `intermediate_size`, and never ties its head. Ternary-Bonsai and Bonsai are Qwen3 with
ternary and binary weights.

    plan = read_qwen(source, storage)  # or read_qwen2, read_qwen3
"""

from __future__ import annotations

from collections.abc import Callable

from edgellm.errors import UnsupportedModel
from edgellm.weights.convert.checkpoints.decoder import (
    Sizes,
    add_ends,
    add_feed_forward,
    add_sizes,
    is_tied,
    limit_to_window,
    require_activation,
    require_full_width,
)
from edgellm.weights.convert.checkpoints.plan import ConversionPlan, PlanBuilder, Storage
from edgellm.weights.convert.checkpoints.source import Source
from edgellm.weights.convert.json_file import JsonFile


def read_qwen2(source: Source, storage: Storage) -> ConversionPlan:
    """Plan a Qwen2 or Qwen2.5, which share an architecture."""
    config = source.config
    require_activation(config, "silu")
    sizes = Sizes.read(config)
    require_full_width(source, sizes, "qwen2")
    return _planned(PlanBuilder(source, "qwen2", storage), source, sizes, _add_qwen2_layer)


def _planned(
    build: PlanBuilder, source: Source, sizes: Sizes, add_layer: Callable[[PlanBuilder, Sizes, str, str], None]
) -> ConversionPlan:
    """The plan of a Qwen2 or Qwen3, which differ in their layers."""
    add_sizes(build, sizes)
    limit_to_window(build, source.config, sizes, default=False)
    add_ends(build, sizes, tied=is_tied(source))
    for i in range(sizes.n_layer):
        add_layer(build, sizes, f"model.layers.{i}", f"blk.{i}")
    return build.finish()


def _add_qwen2_layer(build: PlanBuilder, sizes: Sizes, layer: str, block: str) -> None:
    n_embd = sizes.n_embd
    build.vector(f"{layer}.input_layernorm.weight", f"{block}.attn_norm.weight", n_embd)
    build.matrix(f"{layer}.self_attn.q_proj", f"{block}.attn_q", (n_embd, n_embd), bias=True)
    build.matrix(f"{layer}.self_attn.k_proj", f"{block}.attn_k", (sizes.n_kv, n_embd), bias=True)
    build.matrix(f"{layer}.self_attn.v_proj", f"{block}.attn_v", (sizes.n_kv, n_embd), bias=True)
    build.matrix(f"{layer}.self_attn.o_proj", f"{block}.attn_output", (n_embd, n_embd))
    build.vector(f"{layer}.post_attention_layernorm.weight", f"{block}.ffn_norm.weight", n_embd)
    add_feed_forward(build, sizes, layer, block)


def read_qwen3(source: Source, storage: Storage) -> ConversionPlan:
    """Plan a Qwen3: no biases, and a norm over each head of queries and keys."""
    config = source.config
    require_activation(config, "silu")
    sizes = Sizes.read(config)
    return _planned(PlanBuilder(source, "qwen3", storage), source, sizes, _add_qwen3_layer)


def _add_qwen3_layer(build: PlanBuilder, sizes: Sizes, layer: str, block: str) -> None:
    n_embd = sizes.n_embd
    build.vector(f"{layer}.input_layernorm.weight", f"{block}.attn_norm.weight", n_embd)
    build.matrix(f"{layer}.self_attn.q_proj", f"{block}.attn_q", (sizes.n_q, n_embd))
    build.matrix(f"{layer}.self_attn.k_proj", f"{block}.attn_k", (sizes.n_kv, n_embd))
    build.matrix(f"{layer}.self_attn.v_proj", f"{block}.attn_v", (sizes.n_kv, n_embd))
    build.vector(f"{layer}.self_attn.q_norm.weight", f"{block}.attn_q_norm.weight", sizes.head_dim)
    build.vector(f"{layer}.self_attn.k_norm.weight", f"{block}.attn_k_norm.weight", sizes.head_dim)
    build.matrix(f"{layer}.self_attn.o_proj", f"{block}.attn_output", (n_embd, sizes.n_q))
    build.vector(f"{layer}.post_attention_layernorm.weight", f"{block}.ffn_norm.weight", n_embd)
    add_feed_forward(build, sizes, layer, block)


def read_qwen(source: Source, storage: Storage) -> ConversionPlan:
    """Plan a first-generation Qwen (QWenLMHeadModel)."""
    sizes = _qwen_sizes(source.config)
    n_embd, n_ff = sizes.n_embd, sizes.n_ff
    build = PlanBuilder(source, "qwen", storage)
    add_sizes(build, sizes)
    build.key("feed_forward_length", 2 * n_ff)
    build.embedding("transformer.wte.weight", n_embd)
    build.vector("transformer.ln_f.weight", "output_norm.weight", n_embd)
    build.output("lm_head.weight", n_embd, tied=False)
    for i in range(sizes.n_layer):
        layer, block = f"transformer.h.{i}", f"blk.{i}"
        build.vector(f"{layer}.ln_1.weight", f"{block}.attn_norm.weight", n_embd)
        build.matrix(f"{layer}.attn.c_attn", f"{block}.attn_qkv", (3 * n_embd, n_embd), bias=True)
        build.matrix(f"{layer}.attn.c_proj", f"{block}.attn_output", (n_embd, n_embd))
        build.vector(f"{layer}.ln_2.weight", f"{block}.ffn_norm.weight", n_embd)
        build.matrix(f"{layer}.mlp.w2", f"{block}.ffn_gate", (n_ff, n_embd))
        build.matrix(f"{layer}.mlp.w1", f"{block}.ffn_up", (n_ff, n_embd))
        build.matrix(f"{layer}.mlp.c_proj", f"{block}.ffn_down", (n_embd, n_ff))
    return build.finish()


def _qwen_sizes(config: JsonFile) -> Sizes:
    """Read the sizes under their old names. The context is `seq_length`: beyond it the model changes its attention
    (dynamic NTK, logarithmic scaling), which the engine does not implement."""
    common = {
        "num_hidden_layers": config.integer("num_hidden_layers"),
        "hidden_size": config.integer("hidden_size"),
        "intermediate_size": config.integer("intermediate_size", low=2) // 2,
        "num_attention_heads": config.integer("num_attention_heads"),
        "max_position_embeddings": config.integer("seq_length"),
        "rms_norm_eps": config.number("layer_norm_epsilon"),
        "rope_theta": config.number("rotary_emb_base", 10000.0),
    }
    sizes = Sizes.read(JsonFile(config.name, common))
    if config.number("rotary_pct", 1.0) != 1.0 or config.integer("kv_channels", sizes.head_dim) != sizes.head_dim:
        why = "it rotates only a part of each head, or its heads are not hidden_size / num_attention_heads wide"
        raise UnsupportedModel("the model cannot be converted", why=why)
    # Beyond seq_length, or said by the tensors.
    config.ignore("use_dynamic_ntk", "use_logn_attn", "max_position_embeddings", "no_bias")
    return sizes
