"""What a model's memory depends on: its layers, its vocabulary, and the types and sizes of its matrices.

    outline = Outline.of([gguf])
    outline.cache_row("Q8_0")     # bytes of KV cache a token

It comes from the header of a GGUF file (all headers of a split one), wherever the rest of it may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.errors import CorruptFile, UsageError
from edgellm.formats.gguf_file import GGUFFile, TensorInfo
from edgellm.formats.quant_types import QuantType, named_type

# The types that the engine can keep keys and values in (common/arg.cpp), best first.
CACHE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")
# LLAMA_MAX_LAYERS: for more the engine ends the process.
MAX_LAYERS = 512


@dataclass(frozen=True, slots=True)
class Outline:
    """A model without its weights.

    `keys` and `values` are the numbers that a token leaves in the cache, layer by layer; `head_size` those of one
    head; `n_words` counts the vocabulary and its merges; `n_bytes` the file, or files.
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

    @classmethod
    def of(cls, parts: Sequence[GGUFFile], name: str = "") -> Outline:
        """Read the headers; the first part has the metadata.

        Raises:
            CorruptFile: a number in it cannot be.
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
            n_ff=max(_per_layer(first, "feed_forward_length", n_layer, [0] * n_layer)),
            n_vocab=_length(first, "tokenizer.ggml.tokens"),
            n_words=_length(first, "tokenizer.ggml.tokens") + _length(first, "tokenizer.ggml.merges"),
            head_size=min(key_size, value_size),
            keys=tuple(heads * key_size * caches for heads in kv_heads),
            values=tuple(heads * value_size * caches for heads in kv_heads),
            tensors=tensors,
        )

    def cache_row(self, kind: str) -> int:
        """The bytes that one token takes in the KV cache when it is kept in that type."""
        quant_type = cache_type(kind)
        numbers = sum(self.keys) + sum(self.values)
        return numbers * quant_type.block_bytes // quant_type.block_size

    def allows(self, kind: str) -> bool:
        """Whether whole blocks of a cache type make up a head: the engine takes nothing else."""
        return self.head_size % cache_type(kind).block_size == 0


def layer_count(gguf: GGUFFile) -> int:
    """How many layers the model has; CorruptFile for a number that would end the engine's process."""
    n_layer = gguf.get_int(gguf.key("block_count"))
    if not 0 < n_layer <= MAX_LAYERS:
        raise CorruptFile(f"{gguf.path.name} is corrupt", why=f"it claims to have {n_layer} layers")
    return n_layer


def cache_type(kind: str) -> QuantType:
    """The tensor type of a KV cache; UsageError lists what there is."""
    if kind.upper() not in CACHE_TYPES:
        names = ", ".join(name.lower() for name in CACHE_TYPES)
        raise UsageError(f"there is no KV cache of type {kind!r:.40}", hint=f"--kv with one of {names}")
    return named_type(kind)


def is_encoder(architecture: str) -> bool:
    """Whether a model reads a text at once, as embedding models do: it has no head and keeps no cache."""
    return "bert" in architecture


def quant_of(tensors: Sequence[TensorInfo]) -> str:
    """The type that most of the weights have: what the model is called by."""
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
