"""What Llama and its many descendants have in common: sizes, metadata keys, and names of layers.

sizes = Sizes.read(config)
add_sizes(build, sizes)
"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.errors import CorruptFile
from edgellm.weights.checkpoints.plan import PlanBuilder
from edgellm.weights.checkpoints.rope import Rope, rope_keys
from edgellm.weights.checkpoints.source import Source
from edgellm.weights.json_file import JsonFile

# Sizes no model comes near; they keep products of two of them far below 2**63.
_MAX_WIDTH = 1 << 20
_MAX_LAYERS = 1 << 12


@dataclass(frozen=True, slots=True)
class Sizes:
    """The dimensions of a decoder, as config.json names them since Llama."""

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
        """Read and check the dimensions."""
        n_head = config.integer("num_attention_heads", low=1, high=_MAX_WIDTH)
        n_embd = config.integer("hidden_size", low=1, high=_MAX_WIDTH)
        if "head_dim" not in config and n_embd % n_head:
            raise CorruptFile(f"{config.name} is not valid", why=f"{n_embd} channels do not go into {n_head} heads")
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
        """Rows of the query projection."""
        return self.n_head * self.head_dim

    @property
    def n_kv(self) -> int:
        """Rows of the key and of the value projection."""
        return self.n_head_kv * self.head_dim


def add_sizes(build: PlanBuilder, sizes: Sizes) -> None:
    """Set the keys every decoder has."""
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
    for suffix, value in rope_keys(sizes.rope).items():
        build.key(suffix, value)


def add_ends(build: PlanBuilder, sizes: Sizes, *, tied: bool) -> None:
    """Take the embedding, the last norm and the head."""
    build.embedding("model.embed_tokens.weight", sizes.n_embd)
    build.vector("model.norm.weight", "output_norm.weight", sizes.n_embd)
    build.output("lm_head.weight", sizes.n_embd, tied=tied)


def add_feed_forward(build: PlanBuilder, sizes: Sizes, layer: str, block: str, *, bias: bool = False) -> None:
    """Take the gated feed-forward network of one layer."""
    up, down = (sizes.n_ff, sizes.n_embd), (sizes.n_embd, sizes.n_ff)
    build.matrix(f"{layer}.mlp.gate_proj", f"{block}.ffn_gate", up, bias=bias)
    build.matrix(f"{layer}.mlp.up_proj", f"{block}.ffn_up", up, bias=bias)
    build.matrix(f"{layer}.mlp.down_proj", f"{block}.ffn_down", down, bias=bias)


def is_tied(source: Source) -> bool:
    """Whether the output head is the token embedding: so the configuration says, or else there is no other."""
    return source.config.flag("tie_word_embeddings", "lm_head.weight" not in source)


def require_activation(config: JsonFile, *known: str) -> str:
    """Return `hidden_act`, by default the first one; CorruptFile when the architecture computes no such activation."""
    activation = config.text("hidden_act", known[0])
    if activation not in known:
        raise CorruptFile(
            f"{config.name} cannot be used", why=f"hidden_act is {activation!r}, not {' or '.join(known)}"
        )
    return activation
