"""Log-probabilities of tokens in the forms of OpenAI's two APIs; llama-server has a form of its own.

as_chat([{"id": 1, "token": "a", "bytes": [97], "logprob": -0.1, "top_logprobs": [...]}], n_top=0)

A token that is a part of a character is named by its bytes, as `bytes:\\xe4\\xbd`: the text of all such parts would be
the same.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from typing import Any

# llama-server's entries: token, bytes, logprob and top_logprobs.
Entries = Sequence[Mapping[str, Any]]


def as_chat(entries: Entries, n_top: int) -> list[dict[str, Any]]:
    """The form of a chat; llama-server returns at least one alternative, even where a client wants none."""
    return [{**_plain(each), "top_logprobs": [_plain(top) for top in each["top_logprobs"][:n_top]]}
            for each in _texts(entries)]  # fmt: skip


def as_completion(entries: Entries, n_top: int, offset: int = 0) -> dict[str, Any]:
    """The form of a completion; `offset` is where the first token begins in the text, in characters."""
    texts, offsets = _texts(entries), []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for each in texts:
        offsets.append(offset)
        offset += len(decoder.decode(bytes(each["bytes"])))
    tops = [{token_name(top): top["logprob"] for top in each["top_logprobs"][:n_top]} for each in texts]
    return {
        "tokens": [token_name(each) for each in texts],
        "token_logprobs": [each["logprob"] for each in texts],
        "top_logprobs": tops if n_top else None,
        "text_offset": offsets,
    }


def token_name(entry: Mapping[str, Any]) -> str:
    """The text of a token, or its bytes if they are only a part of a character."""
    data = bytes(entry["bytes"])
    try:
        return data.decode() if data else str(entry["token"])
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _texts(entries: Entries) -> list[Mapping[str, Any]]:
    """Without the tokens that are no text: the end of the answer, or part of a stop sequence."""
    return [each for each in entries if each["bytes"]]


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": token_name(entry), "bytes": entry["bytes"], "logprob": entry["logprob"]}
