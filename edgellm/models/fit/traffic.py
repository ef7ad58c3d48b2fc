"""Computes how many bytes of memory decoding one token reads, from a model's header alone.

    bytes_per_token(gguf, depth=64)  ->  790_000_000

Decoding is bound by memory: each token uses every weight once, and the KV cache of all tokens before it. These bytes
divided by the read bandwidth are therefore the minimum time per token.
"""

from __future__ import annotations

from edgellm.formats.gguf_file import GGUFFile, TensorInfo
from edgellm.models.fit.outline import Outline

_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
_EXPERTS = "_exps."


def bytes_per_token(gguf: GGUFFile, *, depth: float) -> int:
    """Return the bytes of the weights, as stored in the file, plus the KV cache (F16) of `depth` tokens.

    The embedding counts fully if it is also the output head, and otherwise as the one row that is looked up. In a
    mixture of experts, only the experts in use count.
    """
    weights = sum(_read(gguf, info) for info in gguf.tensors.values())
    return weights + round(Outline.of([gguf]).cache_row("F16") * depth)


def _read(gguf: GGUFFile, info: TensorInfo) -> int:
    if info.name == _EMBEDDING and _HEAD in gguf.tensors:
        return info.nbytes // max(1, info.shape[-1])
    if _EXPERTS in info.name:
        n_expert = max(1, gguf.get_int(gguf.key("expert_count"), 1))
        used = min(n_expert, max(1, gguf.get_int(gguf.key("expert_used_count"), n_expert)))
        return info.nbytes * used // n_expert
    return info.nbytes
