"""Qwen: QWenLMHeadModel, the first one, with names of its own, and Qwen2ForCausalLM, a Llama with query biases.

Neither needs its rows in another order. The first Qwen fuses queries, keys and values into c_attn, calls the
gate w2 and the up projection w1, counts both in `intermediate_size`, and never ties its head.

    plan = read_qwen(source, storage)  # or read_qwen2
"""

from __future__ import annotations

from edgellm.errors import UnsupportedModel
from edgellm.weights.checkpoints.decoder import (
    Sizes,
    add_ends,
    add_feed_forward,
    add_sizes,
    is_tied,
    require_activation,
)
from edgellm.weights.checkpoints.plan import Plan, PlanBuilder, Storage
from edgellm.weights.checkpoints.source import Source
from edgellm.weights.json_file import JsonFile


def read_qwen2(source: Source, storage: Storage) -> Plan:
    """Plan a Qwen2 or Qwen2.5."""
    config = source.config
    require_activation(config, "silu")
    sizes = Sizes.read(config)
    if sizes.n_q != sizes.n_embd:
        why = f"its heads make {sizes.n_q} channels of {sizes.n_embd}, which the engine's qwen2 does not know"
        raise UnsupportedModel(f"{source.name} cannot be converted", why=why)
    build = PlanBuilder(source, "qwen2", storage)
    add_sizes(build, sizes)
    if config.flag("use_sliding_window", False):  # the engine has full attention: the same up to the window
        build.key("context_length", min(sizes.n_ctx, config.integer("sliding_window", sizes.n_ctx, low=1)))
    add_ends(build, sizes, tied=is_tied(source))
    for i in range(sizes.n_layer):
        _add_qwen2_layer(build, sizes, f"model.layers.{i}", f"blk.{i}")
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


def read_qwen(source: Source, storage: Storage) -> Plan:
    """Plan a first Qwen."""
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
    """The sizes under their old names. Beyond `seq_length` the model would change its attention (dynamic NTK,
    logarithmic scaling), which the engine does not compute: that is the context it gets."""
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
    return sizes
