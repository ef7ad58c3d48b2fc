"""BERT embedding models (MiniLM, bge): an encoder whose token vectors are pooled into one per text.

Only the tensors needed for the vectors are converted: BERT's own pooler and its language-modelling head are
left out. The pooling comes from sentence-transformers' files; without them it is the mean, as in that library.

    plan = read(source, Dense(source))
"""

from __future__ import annotations

from pathlib import Path

from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.weights.convert.checkpoints.decoder import require_activation
from edgellm.weights.convert.checkpoints.plan import ConversionPlan, PlanBuilder, Storage
from edgellm.weights.convert.checkpoints.source import Source
from edgellm.weights.convert.json_file import JsonFile

# The engine's enum llama_pooling_type.
_MEAN, _CLS = 1, 2
_UNUSED = ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids")
_UNUSED_HEADS = ("cls.predictions.", "cls.seq_relationship.")


def read(source: Source, storage: Storage) -> ConversionPlan:
    """Plan a BERT encoder."""
    config = source.config
    require_activation(config, "gelu")
    config.ignore("tie_word_embeddings")  # its head is left out
    if config.text("position_embedding_type", "absolute") != "absolute":
        raise UnsupportedModel(f"{source.name} cannot be converted", why="its positions are not absolute")
    prefix = "bert." if "bert.embeddings.word_embeddings.weight" in source else ""
    n_embd = config.integer("hidden_size", low=1, high=1 << 20)
    n_ff = config.integer("intermediate_size", low=1, high=1 << 20)
    n_ctx = config.integer("max_position_embeddings", low=1)
    n_head = config.integer("num_attention_heads", low=1)
    if n_embd % n_head:
        raise CorruptFile("config.json is not valid", why=f"{n_embd} channels do not divide by {n_head} heads")
    n_types = config.integer("type_vocab_size", 1, low=1)
    build = PlanBuilder(source, "bert", storage)
    build.key("block_count", config.integer("num_hidden_layers", low=1, high=1 << 12))
    build.key("context_length", n_ctx)
    build.key("embedding_length", n_embd)
    build.key("feed_forward_length", n_ff)
    build.key("attention.head_count", n_head)
    build.key("attention.layer_norm_epsilon", config.number("layer_norm_eps", 1e-12))
    build.key("attention.causal", False)
    build.key("pooling_type", _pooling(source.directory))
    build.embedding(f"{prefix}embeddings.word_embeddings.weight", n_embd)
    build.table(f"{prefix}embeddings.position_embeddings.weight", "position_embd.weight", (n_ctx, n_embd))
    build.table(f"{prefix}embeddings.token_type_embeddings.weight", "token_types.weight", (n_types, n_embd))
    _add_norm(source, build, f"{prefix}embeddings.LayerNorm", "token_embd_norm", n_embd)
    for i in range(config.integer("num_hidden_layers")):
        _add_layer(source, build, f"{prefix}encoder.layer.{i}", f"blk.{i}", n_embd, n_ff)
    source.ignore(*(f"{prefix}{name}" for name in _UNUSED))
    source.ignore(*(name for name in source.names if name.startswith(_UNUSED_HEADS)))
    return build.finish()


def _add_layer(source: Source, build: PlanBuilder, layer: str, block: str, n_embd: int, n_ff: int) -> None:
    for name, target in (("query", "attn_q"), ("key", "attn_k"), ("value", "attn_v")):
        build.matrix(f"{layer}.attention.self.{name}", f"{block}.{target}", (n_embd, n_embd), bias=True)
    build.matrix(f"{layer}.attention.output.dense", f"{block}.attn_output", (n_embd, n_embd), bias=True)
    _add_norm(source, build, f"{layer}.attention.output.LayerNorm", f"{block}.attn_output_norm", n_embd)
    build.matrix(f"{layer}.intermediate.dense", f"{block}.ffn_up", (n_ff, n_embd), bias=True)
    build.matrix(f"{layer}.output.dense", f"{block}.ffn_down", (n_embd, n_ff), bias=True)
    _add_norm(source, build, f"{layer}.output.LayerNorm", f"{block}.layer_output_norm", n_embd)


def _add_norm(source: Source, build: PlanBuilder, stem: str, target: str, size: int) -> None:
    """Add a layer norm; files converted from TensorFlow call its weight gamma and its bias beta."""
    weight, bias = ("gamma", "beta") if f"{stem}.gamma" in source else ("weight", "bias")
    build.vector(f"{stem}.{weight}", f"{target}.weight", size)
    build.vector(f"{stem}.{bias}", f"{target}.bias", size)


def _pooling(directory: Path) -> int:
    """Return the pooling type from modules.json and the configuration of its Pooling module."""
    if not (directory / "modules.json").is_file():
        return _MEAN
    modules = JsonFile.read_list(directory / "modules.json")
    paths = [module.text("path") for module in modules if module.text("type").endswith("Pooling")]
    if not paths:
        return _MEAN
    if Path(paths[0]).name != paths[0]:
        raise CorruptFile("modules.json is not valid", why=f"{paths[0]!r} is not the name of a directory")
    config = JsonFile.read(directory / paths[0] / "config.json")
    modes = [key for key in config.values if key.startswith("pooling_mode_") and config.flag(key, False)]
    mode = config.text("pooling_mode", modes[0] if len(modes) == 1 else "")
    pooling = {"pooling_mode_mean_tokens": _MEAN, "mean": _MEAN, "pooling_mode_cls_token": _CLS, "cls": _CLS}.get(mode)
    if pooling is None:
        why = f"it pools by {', '.join(modes) or repr(mode)}; only mean and cls are supported"
        raise UnsupportedModel("the model cannot be converted", why=why)
    return pooling
