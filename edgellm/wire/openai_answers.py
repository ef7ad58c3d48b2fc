"""OpenAI's answers as data: whole completions, their choices, usage and embeddings; built here for serve and batch.

chat_choice(0, "Paris.", "stop")  ->  {"index": 0, "message": {...}, "logprobs": None, "finish_reason": "stop"}
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CHAT_COMPLETION, TEXT_COMPLETION = "chat.completion", "text_completion"


def chat_choice(
    index: int,
    text: str,
    finish_reason: str,
    *,
    thoughts: str = "",
    calls: Sequence[Mapping[str, Any]] = (),
    logprobs: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """One answer to a chat; `calls` come from `tool_call`, `logprobs` has an entry for each token."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thoughts:
        message["reasoning_content"] = thoughts
    if calls:
        message |= {"content": text or None, "tool_calls": list(calls)}
    listed = None if logprobs is None else {"content": logprobs, "refusal": None}
    return {"index": index, "message": message, "logprobs": listed, "finish_reason": finish_reason}


def tool_call(id_: str, name: str, arguments: str) -> dict[str, Any]:
    """A call of a function; `arguments` is JSON in a string."""
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def text_choice(index: int, text: str, finish_reason: str, logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
    """One continuation of a text."""
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def usage(n_prompt: int, n_completion: int, n_cached: int) -> dict[str, Any]:
    """Tokens; `n_cached` of the prompt were in the cache."""
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_completion,
        "total_tokens": n_prompt + n_completion,
        "prompt_tokens_details": {"cached_tokens": n_cached},
    }


def embedding_list(
    vectors: Iterable[npt.NDArray[np.float32]], *, n_tokens: int, model: str, as_base64: bool
) -> dict[str, Any]:
    """Vectors as numbers, or as base64 of little-endian float32, which OpenAI's clients ask for."""
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_base64 else vector.tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
    }
