"""Lines of a batch as requests: what is understood, and that nothing else is ever dropped silently."""

import json
from typing import Any

import pytest

from edgellm.batch.requests import EmbeddingRow, TextRow, parse_line
from edgellm.errors import BadRequest

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]


def parsed(line: Any, *, jsonl: bool = True, raw: bool = False) -> TextRow | EmbeddingRow | BadRequest:
    data = line if isinstance(line, bytes) else json.dumps(line).encode()
    return parse_line(data, jsonl=jsonl, models={"smollm2"}, raw=raw)[1]


def body(url: str = CHAT, **fields: Any) -> dict[str, Any]:
    return {"custom_id": "a", "method": "POST", "url": url, "body": fields}


def refused(line: Any, **how: bool) -> str:
    found = parsed(line, **how)
    assert isinstance(found, BadRequest), found
    return f"{found.what} | {found.why}"


def test_a_chat_completion_with_everything_that_can_be_honoured() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}]
    found = parsed(
        body(
            model="smollm2", messages=messages, temperature=0.5, top_p=0.9, top_k=5, min_p=0.1, seed=7, stop="END",
            frequency_penalty=0.5, presence_penalty=-0.5, repeat_penalty=1.1, max_tokens=20, max_completion_tokens=10,
            n=1, stream=False, logprobs=False, user="me", metadata={"a": "b"}, tools=[], logit_bias=None,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
        )
    )  # fmt: skip
    assert isinstance(found, TextRow)
    assert found.messages == ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "one\ntwo"})
    assert found.sampling == {
        "temperature": 0.5, "top_p": 0.9, "min_p": 0.1, "top_k": 5, "frequency_penalty": 0.5,
        "presence_penalty": -0.5, "repeat_penalty": 1.1, "seed": 7,
    }  # fmt: skip
    assert (found.max_tokens, found.stop, found.schema) == (10, ("END",), '{"type": "object"}')


def test_completions_embeddings_prompts_and_text() -> None:
    assert parsed(body("/v1/completions", prompt="Once")) == TextRow(prompt="Once")
    assert parsed(body("/v1/completions", prompt=[[1, 2]])) == TextRow(prompt=(1, 2))
    assert parsed(body("/v1/embeddings", input=["a", "b"])) == EmbeddingRow(("a", "b"))
    tokens = body("/v1/embeddings", input=[5, 6], encoding_format="base64", token_ids=True, dimensions=384)
    assert parsed(tokens) == EmbeddingRow(((5, 6),), True, 384)
    assert parsed({"prompt": "hi", "id": 5, "max_tokens": 3}) == TextRow(messages=tuple(HI), max_tokens=3)  # type: ignore[arg-type]
    assert parsed({"prompt": "hi", "system": "s"}).messages[0] == {"role": "system", "content": "s"}  # type: ignore[union-attr]
    assert parsed({"prompt": "hi"}, raw=True) == TextRow(prompt="hi")
    assert parsed("Grüße, 世界".encode(), jsonl=False).messages[0]["content"] == "Grüße, 世界"  # type: ignore[union-attr]


@pytest.mark.parametrize(("given", "custom_id"), [("7a", "7a"), (5, "5"), (True, None), ({"a": 1}, None)])
def test_a_prompt_is_named_by_its_id_too(given: Any, custom_id: str | None) -> None:
    line = {"prompt": "hi", "id": given}
    assert parse_line(json.dumps(line).encode(), jsonl=True, models=()) == (custom_id, TextRow(messages=tuple(HI)))
    line["custom_id"] = "mine"
    assert parse_line(json.dumps(line).encode(), jsonl=True, models=())[0] == "mine"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2), ("stream", True), ("logprobs", True), ("top_logprobs", 3), ("tools", [{}]), ("functions", [{}]),
        ("logit_bias", {"5": 1}), ("audio", {"voice": "a"}), ("nosuch", 1), ("n", True), ("num_ctx", 512),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_honoured_is_named(field: str, value: Any) -> None:
    assert refused(body(messages=HI, **{field: value})).startswith(field)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (body(messages=HI, model="gpt-4o"), "model is"),
        (body(messages=HI, temperature="hot"), "temperature: Input should be a valid number"),
        (body(messages=HI, temperature=True), "temperature: a number is needed"),
        (body(messages=HI, temperature=9), "less than or equal to 5"),
        (body(messages=HI, max_tokens=1.5), "max_tokens: Input should be a valid integer"),
        (body(messages=HI, max_tokens=10**400), "max_tokens: "),
        (body(messages=HI, stop=[""]), "stop"),
        (body(messages=HI, stop=["x"] * 65), "stop: List should have at most 64 items"),
        (body(messages=HI, stop=5), "stop: Input should be a valid"),
        (body(messages=[]), "messages: List should have at least 1 item"),
        (body(messages="hi"), "messages: Input should be a valid list"),
        (body(messages=[5]), "messages.0: Input should be a valid dictionary"),
        (body(messages=[{"role": "tool", "content": "x"}]), "messages.0.role cannot be tool in a batch"),
        (body(messages=[{"role": [], "content": "x"}]), "messages.0.role: Input should be"),
        (body(messages=[{"role": "user", "content": "x", "name": "me"}]), "messages.0.name cannot be honoured"),
        (body(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "image_url cannot be read"),
        (body(messages=HI, response_format="json"), "response_format"),
        (body(messages=HI, response_format={"type": "xml"}), "response_format"),
        (body(messages=HI, response_format={"type": "json_schema"}), "json_schema is missing"),
        (body("/v1/completions"), "prompt is missing"),
        (body("/v1/completions", prompt=["a", "b"]), "one prompt, not 2"),
        (body("/v1/completions", prompt=[True]), "prompt"),
        (body("/v1/completions", prompt=[-1]), "prompt"),
        (body("/v1/embeddings", input=[]), "input"),
        (body("/v1/embeddings", input="a", dimensions=0), "dimensions: "),
        (body("/v1/embeddings", input=[5]), "check_embedding_ctx_length=False"),
        (body("/v1/embeddings", input="a", encoding_format="hex"), "encoding_format"),
        (body("/v2/nothing"), "url is one of"),
        ({"url": 5, "body": {}}, "url is one of"),
        ({"url": CHAT}, "body is an object"),
        ({"url": CHAT, "body": {}, "method": "GET"}, "method is POST"),
        ({"url": CHAT, "body": {"messages": HI}, "extra": 1}, '"extra" is not known'),
        ({"custom_id": 5, "prompt": "x"}, "custom_id is a text"),
        ({"custom_id": "x" * 600, "prompt": "x"}, "custom_id is a text"),
        ({"hello": "world"}, "neither"),
        ({"prompt": 5}, "prompt is a text"),
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": "x", "nosuch": 1}, "nosuch is not supported"),
        ([], "not a JSON object"),
        ("text", "not a JSON object"),
        (b"garbage", "not JSON"),
        (b'{"prompt": "a\nb"}', "not JSON"),
        (b'{"prompt": NaN}', "not JSON"),
        (b'{"prompt": "x", "temperature": 1e999}', "temperature: Input should be a finite number"),
        (b'{"prompt": "\\ud800"}', "half a character"),
        (b'{"prompt": "a\0b"}', "NUL"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(line: Any, said: str) -> None:
    assert said in refused(line)


def test_wrong_text_lines() -> None:
    assert "NUL" in refused(b"a\0b", jsonl=False)
    assert "UTF-8" in refused(b"\xff", jsonl=False)


def test_the_custom_id_of_a_wrong_request_is_kept() -> None:
    data = json.dumps(body(messages=5)).encode()
    custom_id, found = parse_line(data, jsonl=True, models=())
    assert custom_id == "a" and isinstance(found, BadRequest)


def test_a_row_says_whether_it_wants_the_loop_guard() -> None:
    for line in ({"prompt": "hi"}, body(messages=HI), body("/v1/completions", prompt="hi")):
        for wanted in (True, False, None):
            found = parsed({**line, "loop_guard": wanted})
            assert isinstance(found, TextRow) and found.loop_guard is wanted
    assert "loop_guard is true or false" in refused({"prompt": "hi", "loop_guard": 1})
    assert "not for vectors" in refused({**body("/v1/embeddings", input="hi"), "loop_guard": True})
