"""Log-probabilities of an answer's tokens as the two APIs of OpenAI have them; the worker has its own form.

as_chat([{"id": 1, "token": "a", "bytes": [97], "logprob": -0.1, "top_logprobs": [...]}], n_top=0)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Entries = Sequence[dict[str, Any]]


def as_chat(entries: Entries, n_top: int) -> list[dict[str, Any]]:
    """Those of a chat; the worker gives at least one alternative, a client may have wanted none."""
    return [{**_plain(each), "top_logprobs": [_plain(top) for top in each["top_logprobs"][:n_top]]}
            for each in _texts(entries)]  # fmt: skip


def as_completion(entries: Entries, n_top: int, offset: int = 0) -> dict[str, Any]:
    """Those of a completion; `offset` is where the first token begins in its text."""
    texts = _texts(entries)
    offsets = []
    for each in texts:
        offsets.append(offset)
        offset += len(each["token"])
    tops = [{top["token"]: top["logprob"] for top in each["top_logprobs"][:n_top]} for each in texts]
    return {
        "tokens": [each["token"] for each in texts],
        "token_logprobs": [each["logprob"] for each in texts],
        "top_logprobs": tops if n_top else None,
        "text_offset": offsets,
    }


def _texts(entries: Entries) -> list[dict[str, Any]]:
    """Without the tokens that are no text: the end of the answer, or a part of a stop sequence."""
    return [each for each in entries if each["bytes"]]


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("token", "bytes", "logprob")}
