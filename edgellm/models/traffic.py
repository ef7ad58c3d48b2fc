"""How many bytes are read from memory for one token, from a model's header alone.

    bytes_per_token(gguf, depth=64)  ->  790_000_000

Decoding is bound by memory: every weight is used once for a token, and so is the KV cache of all tokens before it. So
these bytes over the bandwidth of reading are the least time that a token can take.
"""

from __future__ import annotations

from edgellm.formats.gguf_file import GGUFFile, TensorInfo
from edgellm.models.outline import Outline

_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
_EXPERTS = "_exps."


def bytes_per_token(gguf: GGUFFile, *, depth: float) -> int:
    """Weights as they lie in the file, and the KV cache (F16) of `depth` tokens.

    The embedding counts whole when it is the output head as well, otherwise as the one row that is looked up; of a
    mixture of experts those that are used count.
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
