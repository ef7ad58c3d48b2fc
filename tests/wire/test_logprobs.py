"""Log-probabilities in OpenAI's forms: a token that is a part of a character has its own name, bytes and value."""

from typing import Any

from edgellm.wire.logprobs import as_chat, as_completion


def entry(data: bytes, logprob: float, *tops: tuple[bytes, float]) -> dict[str, Any]:
    """As llama-server writes it, whose texts of incomplete characters are empty or U+FFFD."""
    text = data.decode(errors="replace")
    found = [entry(each, value) for each, value in tops]
    return {"id": 1, "token": text, "bytes": list(data), "logprob": logprob, "top_logprobs": found}


PARTS = [
    entry(b"\xe4\xbd", -1.0, (b"\xe4\xbd", -1.0), (b"\xe5\xa5", -2.0), (b"a", -3.0)),
    entry(b"\xa0", -0.5, (b"\xa0", -0.5), (b"\xa1", -1.5), (b"\xa2", -2.5)),
    entry(b"!", -0.1, (b"!", -0.1), ("好".encode(), -4.0)),
]


def test_a_chat() -> None:
    tokens = as_chat(PARTS, 3)
    assert [each["token"] for each in tokens] == [r"bytes:\xe4\xbd", r"bytes:\xa0", "!"]
    assert b"".join(bytes(each["bytes"]) for each in tokens).decode() == "你!"
    assert [each["logprob"] for each in tokens] == [-1.0, -0.5, -0.1]
    assert [top["token"] for top in tokens[1]["top_logprobs"]] == [r"bytes:\xa0", r"bytes:\xa1", r"bytes:\xa2"]
    assert as_chat(PARTS, 0)[0]["top_logprobs"] == []


def test_a_completion() -> None:
    found = as_completion(PARTS, 3, offset=10)
    assert found["tokens"] == [r"bytes:\xe4\xbd", r"bytes:\xa0", "!"] and found["token_logprobs"] == [-1.0, -0.5, -0.1]
    assert found["text_offset"] == [10, 10, 11]
    assert [len(top) for top in found["top_logprobs"]] == [3, 3, 2], "no alternative replaces another"


def test_tokens_without_text_are_left_out() -> None:
    assert as_completion([*PARTS, entry(b"", -0.2)], 0)["top_logprobs"] is None
    assert len(as_chat([*PARTS, entry(b"", -0.2)], 1)) == 3
