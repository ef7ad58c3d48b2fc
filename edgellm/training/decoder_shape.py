"""The numbers of a decoder that training computes with, from the metadata of a GGUF file; others are refused by name.

shape = DecoderShape.read(gguf)
shape.n_layer, shape.activation, shape.halves
"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.formats.gguf_file import GGUFFile

# Architectures with Llama's graph, and whether a head's halves are rotated against each other, or its neighbours.
_ROTATES_HALVES = {"llama": False, "bitnet": True, "bitnet-b1.58": True, "qwen2": True, "qwen3": True}
# Keys that change the graph in a way that is not implemented here.
_REFUSED = (
    "attention.sliding_window", "expert_count", "logit_scale", "residual_scale", "embedding_scale", "attention.scale",
    "attention.clamp_kqv", "rope.scaling.attn_factor",
)  # fmt: skip
_MOST = 1 << 20


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Sizes and switches. `n_ctx` is the context in tokens, `halves` how heads are rotated (as NEOX does it).

    `activation` is "silu" or "relu2"; `rope_scale` divides the positions.
    """

    architecture: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ctx: int
    eps: float
    rope_base: float
    rope_scale: float
    halves: bool
    activation: str

    @classmethod
    def read(cls, gguf: GGUFFile) -> DecoderShape:
        """Read and check the numbers.

        Raises:
            UnsupportedModel: training does not know the architecture, or something that it computes.
            CorruptFile: a number is missing or out of range.
        """
        architecture = gguf.architecture
        if architecture not in _ROTATES_HALVES:
            why = f"its architecture is {architecture}; training knows {', '.join(_ROTATES_HALVES)}"
            raise UnsupportedModel(f"{gguf.path.name} cannot be trained", why=why, architecture=architecture)
        _refuse_others(gguf)
        n_head = _size(gguf, "attention.head_count")
        n_embd = _size(gguf, "embedding_length")
        head_dim = _size(gguf, "attention.key_length", n_embd // n_head)
        if _size(gguf, "rope.dimension_count", head_dim) != head_dim:
            raise UnsupportedModel(f"{gguf.path.name} cannot be trained", why="it rotates only a part of each head")
        n_head_kv = _size(gguf, "attention.head_count_kv", n_head)
        if n_head % n_head_kv or head_dim % 2:
            why = f"{n_head} heads of {head_dim} channels cannot share {n_head_kv} key-value heads"
            raise CorruptFile(f"{gguf.path.name} is corrupt", why=why)
        relu2 = architecture == "bitnet-b1.58"
        activation = gguf.get_str(gguf.key("hidden_activation"), "relu2" if relu2 else "silu")
        if activation not in ("silu", "relu2"):
            raise UnsupportedModel(f"{gguf.path.name} cannot be trained", why=f"its activation is {activation!r:.40}")
        return cls(
            architecture=architecture, n_layer=_size(gguf, "block_count"), n_embd=n_embd,
            n_ff=_size(gguf, "feed_forward_length"), n_head=n_head, n_head_kv=n_head_kv, head_dim=head_dim,
            n_ctx=_size(gguf, "context_length"), eps=gguf.get_float(gguf.key("attention.layer_norm_rms_epsilon")),
            rope_base=gguf.get_float(gguf.key("rope.freq_base"), 10000.0), rope_scale=_rope_scale(gguf),
            halves=_ROTATES_HALVES[architecture], activation=activation,
        )  # fmt: skip


def _size(gguf: GGUFFile, suffix: str, default: int | None = None) -> int:
    value = gguf.get_int(gguf.key(suffix), default)
    if not 0 < value <= _MOST and suffix != "context_length":
        raise CorruptFile(f"{gguf.path.name} is corrupt", why=f"{suffix} is {value}")
    return value


def _refuse_others(gguf: GGUFFile) -> None:
    found = [suffix for suffix in _REFUSED if gguf.metadata.get(gguf.key(suffix)) not in (None, 0, 0.0, 1.0)]
    if found:
        raise UnsupportedModel(f"{gguf.path.name} cannot be trained", why=f"its {found[0]} is not implemented here")


def _rope_scale(gguf: GGUFFile) -> float:
    kind = gguf.get_str(gguf.key("rope.scaling.type"), "none")
    if kind not in ("none", "linear"):
        raise UnsupportedModel(f"{gguf.path.name} cannot be trained", why=f"its rope scaling is {kind!r:.40}")
    return gguf.get_float(gguf.key("rope.scaling.factor"), 1.0) if kind == "linear" else 1.0
