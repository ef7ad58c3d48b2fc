"""An outline holds what a model's memory depends on: layers, vocabulary, and the types and sizes of its matrices.

    outline = Outline.of([gguf])
    outline.cache_row("Q8_0")     # bytes of KV cache per token

It is read from the header of a GGUF file (all headers of a split one); the rest of the file is not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.engine.limits import MAX_EXPERTS, MAX_LAYERS
from edgellm.errors import CorruptFile, UsageError
from edgellm.formats.gguf_file import GGUFFile, TensorInfo
from edgellm.formats.quant_types import QuantType, named_type

# The types that the engine can keep keys and values in (common/arg.cpp), best first.
CACHE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")


@dataclass(frozen=True, slots=True)
class Outline:
    """A model without its weights.

    `n_ff` is what a token computes at once in a feed-forward block, in numbers (`feed_forward_width`).

    `keys` and `values` count the numbers that a token adds to the cache, layer by layer; `head_size` counts those of
    one head. `n_words` counts the vocabulary and its merges. `n_bytes` is the size of the file or files. `pooled` says
    that the model turns a text into one vector. Beyond a context of `n_ctx_original`, if there is such a bound, the
    engine uses other rope factors, which change all answers.
    """

    name: str
    architecture: str
    quant: str
    n_bytes: int
    n_params: int
    n_ctx_train: int
    n_embd: int
    n_ff: int
    n_vocab: int
    n_words: int
    head_size: int
    keys: tuple[int, ...]
    values: tuple[int, ...]
    tensors: tuple[TensorInfo, ...]
    pooled: bool = False
    n_ctx_original: int | None = None
    n_heads: int = 0

    @classmethod
    def of(cls, parts: Sequence[GGUFFile], name: str = "") -> Outline:
        """Read the headers; the first part has the metadata.

        Raises:
            CorruptFile: a number in a header is invalid.
        """
        first = parts[0]
        n_layer = layer_count(first)
        n_embd = _positive(first, "embedding_length")
        heads = _per_layer(first, "attention.head_count", n_layer, [0] * n_layer)
        kv_heads = _per_layer(first, "attention.head_count_kv", n_layer, heads)
        default_head = n_embd // max(1, *heads)
        key_size = first.get_int(first.key("attention.key_length"), default_head)
        value_size = first.get_int(first.key("attention.value_length"), default_head)
        tensors = tuple(info for part in parts for info in part.tensors.values())
        caches = not is_encoder(first.architecture)
        return cls(
            name=name or first.path.name,
            architecture=first.architecture,
            quant=quant_of(tensors),
            n_bytes=sum(part.size for part in parts),
            n_params=sum(info.n_params for info in tensors),
            n_ctx_train=_positive(first, "context_length"),
            n_embd=n_embd,
            n_ff=_feed_forward(first, n_layer, n_embd),
            n_vocab=_length(first, "tokenizer.ggml.tokens"),
            n_words=_length(first, "tokenizer.ggml.tokens") + _length(first, "tokenizer.ggml.merges"),
            head_size=min(key_size, value_size),
            keys=tuple(heads * key_size * caches for heads in kv_heads),
            n_heads=max(heads, default=0),
            values=tuple(heads * value_size * caches for heads in kv_heads),
            tensors=tensors,
            pooled=first.get_int(first.key("pooling_type"), 0) != 0 or not caches,
            n_ctx_original=_original_context(first, tensors),
        )

    def cache_row(self, kind: str) -> int:
        """Return the bytes that one token takes in a KV cache of this type."""
        quant_type = cache_type(kind)
        numbers = sum(self.keys) + sum(self.values)
        return numbers * quant_type.block_bytes // quant_type.block_size

    def allows(self, kind: str) -> bool:
        """Whether a head is a whole number of blocks of a cache type, as the engine requires."""
        return self.head_size % cache_type(kind).block_size == 0


def feed_forward_width(n_embd: int, n_ff: int, n_expert_used: int) -> int:
    """Return how many numbers of a token each of four stages of a feed-forward block keeps in memory (fit/memory.py).

    With experts, those in use have activations of their own and results as wide as the model; the engine keeps them
    once, not in four stages.
    """
    return n_expert_used * (n_ff + n_embd) // 4 if n_expert_used else n_ff


def _feed_forward(first: GGUFFile, n_layer: int, n_embd: int) -> int:
    def widest(name: str) -> int:
        return max(_per_layer(first, name, n_layer, [0] * n_layer))

    used = first.get_int(first.key("expert_used_count"), 0)
    of_experts = (
        feed_forward_width(n_embd, widest("expert_feed_forward_length"), used) if 0 < used <= MAX_EXPERTS else 0
    )
    return max(widest("feed_forward_length"), of_experts)


def _original_context(first: GGUFFile, tensors: Sequence[TensorInfo]) -> int | None:
    """Return the context up to which the engine uses the short ones of two sets of rope factors (LongRoPE)."""
    if all(info.name != "rope_factors_long.weight" for info in tensors):
        return None
    return first.get_int(first.key("rope.scaling.original_context_length"), 0) or None


def layer_count(gguf: GGUFFile) -> int:
    """Return the number of layers; CorruptFile for a number with which the engine would abort the process."""
    n_layer = gguf.get_int(gguf.key("block_count"))
    if not 0 < n_layer <= MAX_LAYERS:
        raise CorruptFile(f"{gguf.path.name} is corrupt", why=f"it claims to have {n_layer} layers")
    return n_layer


def cache_type(kind: str) -> QuantType:
    """Return the tensor type of a KV cache; UsageError, with the list of types, for an unknown one."""
    if kind.upper() not in CACHE_TYPES:
        names = ", ".join(name.lower() for name in CACHE_TYPES)
        raise UsageError(f"there is no KV cache of type {kind!r:.40}", hint=f"--kv with one of {names}")
    return named_type(kind)


def is_encoder(architecture: str) -> bool:
    """Whether a model reads a text at once, as embedding models do: it has no head and no cache."""
    return "bert" in architecture


def quant_of(tensors: Sequence[TensorInfo]) -> str:
    """Return the type of most of the weights, by which the file is named."""
    sizes: dict[str, int] = {}
    for info in tensors:
        if len(info.shape) > 1 and info.name != "token_embd.weight":
            sizes[info.type.name] = sizes.get(info.type.name, 0) + info.n_params
    return max(sizes, key=lambda name: sizes[name], default="F32")


def _positive(gguf: GGUFFile, suffix: str) -> int:
    value = gguf.get_int(gguf.key(suffix))
    if not 0 < value < 1 << 31:
        raise CorruptFile(f"{gguf.path.name} is corrupt", why=f"its {suffix} is {value}")
    return value


def _per_layer(gguf: GGUFFile, name: str, n_layer: int, default: list[int]) -> list[int]:
    key = gguf.key(name)
    values = gguf.get_ints(key, n_layer) if key in gguf.metadata else default
    if not all(0 <= value < 1 << 31 for value in values):
        raise CorruptFile(f"{gguf.path.name} is corrupt", why=f"its {name} is {max(values, key=abs)}")
    return values


def _length(gguf: GGUFFile, key: str) -> int:
    return len(gguf.get_array(key)) if key in gguf.metadata else 0
