"""What Llama and its descendants have in common: sizes, metadata keys and layer names.

sizes = Sizes.read(config)
add_sizes(build, sizes)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.weights.convert.checkpoints.plan import PlanBuilder
from edgellm.weights.convert.checkpoints.rope import Rope, rope_keys
from edgellm.weights.convert.checkpoints.source import Source
from edgellm.weights.convert.json_file import JsonFile

# Far above the sizes of any model; they keep the product of any two far below 2**63.
_MAX_WIDTH = 1 << 20
_MAX_LAYERS = 1 << 12


@dataclass(frozen=True, slots=True)
class Sizes:
    """The dimensions of a decoder, read from the config.json keys that Llama introduced."""

    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ctx: int
    rms_eps: float
    rope: Rope

    @classmethod
    def read(cls, config: JsonFile) -> Sizes:
        """Read and check the dimensions; CorruptFile when they are out of range or inconsistent."""
        n_head = config.integer("num_attention_heads", low=1, high=_MAX_WIDTH)
        n_embd = config.integer("hidden_size", low=1, high=_MAX_WIDTH)
        if "head_dim" not in config and n_embd % n_head:
            raise CorruptFile(f"{config.name} is not valid", why=f"{n_embd} channels do not divide by {n_head} heads")
        n_head_kv = config.integer("num_key_value_heads", n_head, low=1, high=n_head)
        if n_head % n_head_kv:
            why = f"{n_head} heads cannot share {n_head_kv} key-value heads"
            raise CorruptFile(f"{config.name} is not valid", why=why)
        return cls(
            n_layer=config.integer("num_hidden_layers", low=1, high=_MAX_LAYERS),
            n_embd=n_embd,
            n_ff=config.integer("intermediate_size", low=1, high=_MAX_WIDTH),
            n_head=n_head,
            n_head_kv=n_head_kv,
            head_dim=config.integer("head_dim", n_embd // n_head, low=2, high=_MAX_WIDTH),
            n_ctx=config.integer("max_position_embeddings", low=1),
            rms_eps=config.number("rms_norm_eps"),
            rope=Rope.read(config),
        )

    @property
    def n_q(self) -> int:
        """The number of rows of the query projection."""
        return self.n_head * self.head_dim

    @property
    def n_kv(self) -> int:
        """The number of rows of the key projection, and of the value projection."""
        return self.n_head_kv * self.head_dim


def add_sizes(
    build: PlanBuilder, sizes: Sizes, *, kinds: tuple[str, ...] = ("default", "linear", "yarn"), partial: bool = False
) -> None:
    """Set the metadata keys that every decoder has.

    `kinds` are the types of rotation that the engine computes for the architecture; "llama3" stands for divisors of
    the frequencies, of any values. `partial` says that it can rotate a part of each head.
    """
    rope = sizes.rope
    if rope.kind not in kinds:
        build.refuse(f"its rope type is {rope.kind!r}")
    if rope.partial != 1 and not partial:
        build.refuse(f"partial_rotary_factor is {rope.partial:g}: the engine rotates whole heads")
    if rope.yarn and not rope.yarn.is_the_engines and "llama3" not in kinds:
        yarn = rope.yarn
        why = f"beta_fast is {yarn.beta_fast:g}, beta_slow {yarn.beta_slow:g} and truncate {yarn.truncate}"
        build.refuse(f"{why}; the engine computes YaRN with 32, 1 and True")
    build.key("block_count", sizes.n_layer)
    build.key("context_length", sizes.n_ctx)
    build.key("embedding_length", sizes.n_embd)
    build.key("feed_forward_length", sizes.n_ff)
    build.key("attention.head_count", sizes.n_head)
    build.key("attention.head_count_kv", sizes.n_head_kv)
    build.key("attention.layer_norm_rms_epsilon", sizes.rms_eps)
    build.key("rope.dimension_count", sizes.head_dim)
    if sizes.n_q != sizes.n_embd:
        build.key("attention.key_length", sizes.head_dim)
        build.key("attention.value_length", sizes.head_dim)
    for suffix, value in rope_keys(rope).items():
        build.key(suffix, value)


def limit_to_window(build: PlanBuilder, config: JsonFile, sizes: Sizes, *, default: bool) -> None:
    """Limit the context to the sliding window: the engine computes full attention, which is the same up to there.

    `default` says whether a model of this architecture uses its window when its configuration does not say.
    """
    window = config.integer("sliding_window", 0)
    used = config.flag("use_sliding_window", default)
    first = config.integer("max_window_layers", 0)  # layers from here on have the window
    layers = config.items("layer_types")
    if other := [kind for kind in layers if kind not in ("full_attention", "sliding_attention")]:
        build.refuse(f"layer_types has {other[0]!r:.40}")
    slides = "sliding_attention" in layers if layers else used and first < sizes.n_layer
    if slides and 0 < window < sizes.n_ctx:
        build.key("context_length", window)
        build.note(f"the context is limited to {window:,} tokens, the model's sliding window")


def add_longrope(build: PlanBuilder, sizes: Sizes, n_rot: int) -> None:
    """Add longrope's two sets of factors; the attention factor is sqrt(1 + ln(context / original) / ln(original))."""
    parameters, original = sizes.rope.parameters, sizes.rope.n_ctx_original
    if original < 2:
        raise CorruptFile(f"{parameters.name} is not valid", why=f"original_max_position_embeddings is {original}")
    # transformers takes `factor` when it does not know the original context.
    stretch = parameters.number("factor", 1.0) if original == sizes.n_ctx else sizes.n_ctx / original
    factor = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
    build.key("rope.scaling.attn_factor", parameters.number("attention_factor", factor))
    for length in ("long", "short"):
        factors = parameters.numbers(f"{length}_factor")
        if len(factors) != n_rot // 2:
            why = f"{length}_factor has {len(factors)} numbers, not {n_rot // 2}"
            raise CorruptFile(f"{parameters.name} is not valid", why=why)
        build.constant(f"rope_factors_{length}.weight", np.array(factors, np.float32))


def add_ends(build: PlanBuilder, sizes: Sizes, *, tied: bool) -> None:
    """Add the embedding, the last norm and the head."""
    build.embedding("model.embed_tokens.weight", sizes.n_embd)
    build.vector("model.norm.weight", "output_norm.weight", sizes.n_embd)
    build.output("lm_head.weight", sizes.n_embd, tied=tied)


def add_feed_forward(build: PlanBuilder, sizes: Sizes, layer: str, block: str, *, bias: bool = False) -> None:
    """Add the gated feed-forward network of one layer."""
    up, down = (sizes.n_ff, sizes.n_embd), (sizes.n_embd, sizes.n_ff)
    build.matrix(f"{layer}.mlp.gate_proj", f"{block}.ffn_gate", up, bias=bias)
    build.matrix(f"{layer}.mlp.up_proj", f"{block}.ffn_up", up, bias=bias)
    build.matrix(f"{layer}.mlp.down_proj", f"{block}.ffn_down", down, bias=bias)


def is_tied(source: Source) -> bool:
    """Whether the output head is the token embedding: by the configuration, or because no other head exists."""
    return source.config.flag("tie_word_embeddings", "lm_head.weight" not in source)


def may_have_bias(source: Source, key: str, stem: str) -> bool:
    """Whether layers may have a bias: as the configuration says under `key`, or else if the checkpoint has one.

    Raises CorruptFile when the configuration says so, and the layer `stem` has none.
    """
    wanted = source.config.flag(key, True)
    if wanted and key in source.config and f"{stem}.bias" not in source:
        raise CorruptFile(f"{source.name} does not match its config.json", why=f"{key} is true, without {stem}.bias")
    return wanted


def require_activation(config: JsonFile, *known: str) -> str:
    """Return `hidden_act`, by default the first of `known`; CorruptFile when the architecture does not support it."""
    activation = config.text("hidden_act", known[0])
    if activation not in known:
        raise CorruptFile(
            f"{config.name} cannot be used", why=f"hidden_act is {activation!r}, not {' or '.join(known)}"
        )
    return activation


def require_full_width(source: Source, sizes: Sizes, arch: str) -> None:
    """Raise UnsupportedModel unless the query heads together are as wide as the model, as the engine's `arch` needs."""
    if sizes.n_q != sizes.n_embd:
        why = f"its heads have {sizes.n_q} channels, not {sizes.n_embd}, as the engine's {arch} requires"
        raise UnsupportedModel(f"{source.name} cannot be converted", why=why)
