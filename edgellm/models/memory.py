"""How much memory a model needs at a context, from its header alone, before anything is loaded.

    need = estimate(gguf, n_ctx=4096, n_batch=256)
    need.total, need.kv_cache

The parts: the weights as they lie in the file (they are mapped, and all of them are read for every token); the KV
cache, n_layer x n_ctx x (K row + V row) x 2 bytes in F16; the compute buffers, a few activations for each token of
a batch and the logits that are asked for (the engine reserves logits for all of them, but untouched pages take no
memory); and a slack for Python and the engine itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.errors import ContextTooLarge, CorruptFile, DoesNotFit
from edgellm.formats.gguf_file import GGUFFile

DEFAULT_CONTEXT = 4096
F16_BYTES = 2
# The engine rounds a context up to a multiple of this.
CONTEXT_PADDING = 256
# Resident size of the process without a model, measured: 60 MB.
SLACK = 80_000_000
# Activations of one token alive at once, in multiples of (n_embd + n_ff), float32.
ACTIVATIONS = 4
# LLAMA_MAX_LAYERS: for more the engine ends the process.
MAX_LAYERS = 512


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes by purpose."""

    weights: int
    kv_cache: int
    compute: int
    slack: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.compute + self.slack


def choose_context(n_ctx_train: int, asked: int | None) -> int:
    """The context to open: what was asked for, else 4096 or what the model was trained with, whichever is less.

    Raises:
        ContextTooLarge: more than the model was trained with.
        CorruptFile: the model says that it was trained with none.
    """
    if n_ctx_train < 1:
        raise CorruptFile("the model file is corrupt", why=f"it claims a context of {n_ctx_train} tokens")
    if asked is None:
        return min(DEFAULT_CONTEXT, n_ctx_train)
    if asked > n_ctx_train:
        raise ContextTooLarge(
            f"a context of {asked:,} tokens is larger than the {n_ctx_train:,} the model was trained with",
            why="beyond that it produces nonsense",
            hint=f"--ctx-size {n_ctx_train}",
            asked=asked,
            n_ctx_train=n_ctx_train,
        )
    return asked


def estimate(gguf: GGUFFile, *, n_ctx: int, n_batch: int, n_outputs: int = 1) -> MemoryNeed:
    """What the model will need at that context, with `n_outputs` rows of logits alive at once."""
    n_layer = layer_count(gguf)
    n_embd = gguf.get_int(gguf.key("embedding_length"))
    heads = _per_layer(gguf, "attention.head_count", n_layer)
    kv_heads = _per_layer(gguf, "attention.head_count_kv", n_layer, heads)
    default_head = n_embd // max(1, heads[0])
    key_size = gguf.get_int(gguf.key("attention.key_length"), default_head)
    value_size = gguf.get_int(gguf.key("attention.value_length"), default_head)
    padded = -(-n_ctx // CONTEXT_PADDING) * CONTEXT_PADDING
    kv_cache = sum(kv_heads) * (key_size + value_size) * padded * F16_BYTES
    n_ff = max(_per_layer(gguf, "feed_forward_length", n_layer, [0] * n_layer))
    logits = 4 * n_outputs * _n_vocab(gguf)
    activations = 4 * n_batch * ACTIVATIONS * (n_embd + n_ff)
    weights = sum(info.nbytes for info in gguf.tensors.values())
    return MemoryNeed(weights, kv_cache, logits + activations, SLACK)


def layer_count(gguf: GGUFFile) -> int:
    """How many layers the model has; CorruptFile for a number that would end the engine's process."""
    n_layer = gguf.get_int(gguf.key("block_count"))
    if not 0 < n_layer <= MAX_LAYERS:
        raise CorruptFile(f"{gguf.path.name} is corrupt", why=f"it claims to have {n_layer} layers")
    return n_layer


def together(first: MemoryNeed, second: MemoryNeed) -> MemoryNeed:
    """What two models need that are loaded into one process."""
    return MemoryNeed(
        first.weights + second.weights,
        first.kv_cache + second.kv_cache,
        first.compute + second.compute,
        max(first.slack, second.slack),
    )


def _per_layer(gguf: GGUFFile, name: str, n_layer: int, default: list[int] | None = None) -> list[int]:
    key = gguf.key(name)
    if default is not None and key not in gguf.metadata:
        return default
    return gguf.get_ints(key, n_layer)


def _n_vocab(gguf: GGUFFile) -> int:
    key = "tokenizer.ggml.tokens"
    return len(gguf.get_array(key)) if key in gguf.metadata else 0


def require_fit(need: MemoryNeed, available: int, *, name: str, n_ctx: int, otherwise: str = "a smaller model") -> None:
    """Raise `DoesNotFit` with the parts unless `need` fits into `available` bytes.

    `otherwise` is what helps where a smaller context does not.
    """
    if need.total <= available:
        return
    parts = f"weights {need.weights / 1e9:.2f}, KV cache {need.kv_cache / 1e9:.2f}, compute {need.compute / 1e9:.2f}"
    smaller = n_ctx // 4
    helps = smaller >= 256 and need.total - need.kv_cache * 3 // 4 <= available
    raise DoesNotFit(
        f"{name} needs {need.total / 1e9:.2f} GB at {n_ctx:,} tokens, {available / 1e9:.2f} GB is available",
        why=f"{parts}, slack {need.slack / 1e9:.2f} GB",
        hint=f"the same with --ctx-size {smaller}" if helps else f"{otherwise}, or the same with --force",
        needed=need.total,
        available=available,
        n_ctx=n_ctx,
    )
