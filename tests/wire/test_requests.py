"""One request, two ways in: serve and batch make the same prompt of it, with the same limits and the same refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.batch.requests import CHAT, COMPLETIONS, EMBEDDINGS, KINDS, EmbeddingRow, TextRow, parse_line
from edgellm.engine.sampling import OPTIONS
from edgellm.errors import BadRequest
from edgellm.wire.body import FieldError, MalformedBody, parse
from edgellm.wire.encoding import encoded
from edgellm.wire.openai_requests import ChatRequest, CompletionRequest, EmbeddingRequest

MODEL = "smollm2"


@dataclass(frozen=True)
class Understood:
    """What a front makes of a request; `prompt` are a chat's messages, a text, token ids, or what is to be embedded."""

    prompt: Any
    sampling: dict[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refused:
    """What a front answers to a wrong request; `field` is the path of the field, if there is one."""

    message: str
    field: str | None
    code: str


Front = Callable[[str, dict[str, Any]], Understood | Refused]


def in_serve(path: str, body: dict[str, Any]) -> Understood | Refused:
    """As an endpoint of the server reads it: bytes of JSON, and the body for llama-server."""
    try:
        request = parse(KINDS[path], json.dumps(body).encode())
    except FieldError as error:
        return Refused(error.what, error.field, error.code)
    if isinstance(request, EmbeddingRequest):
        return Understood(tuple(map(_hashable, request.texts)))
    sent = request.for_engine()
    prompt = sent["messages"] if isinstance(request, ChatRequest) else _hashable(request.prompts[0])
    sampling = {name: sent[name] for name in (*OPTIONS, "seed") if name in sent}
    return Understood(prompt, sampling, request.limit, tuple(request.stops))


def in_batch(path: str, body: dict[str, Any]) -> Understood | Refused:
    """As a line of a batch."""
    line = {"custom_id": "1", "method": "POST", "url": path, "body": body}
    _, row = parse_line(json.dumps(line).encode(), jsonl=True, models={MODEL})
    if isinstance(row, BadRequest):
        return Refused(row.what, getattr(row, "field", None), row.code)
    if isinstance(row, EmbeddingRow):
        return Understood(row.inputs)
    assert isinstance(row, TextRow)
    return Understood(list(row.messages) if row.is_chat else row.prompt, dict(row.sampling), row.max_tokens, row.stop)


def _hashable(text: Any) -> Any:
    return text if isinstance(text, str) else tuple(text)


FRONTS = pytest.mark.parametrize("front", [in_serve, in_batch])


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": list(messages), **more}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def part(text: str, kind: str = "text") -> dict[str, Any]:
    return {"type": kind, "text": text}


HELLO = user("Hello")


@FRONTS
@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hello", "Hello"), ([part("Hello")], "Hello"),
        ([part("A document."), part("A question?")], "A document.\nA question?"),
        ([part("a", "input_text"), part(""), part("b")], "a\n\nb"), ([], ""), ("", ""), (None, ""),
        ([part("Grüße\n"), part("日本🙂")], "Grüße\n\n日本🙂"),
    ],
)  # fmt: skip
def test_parts_of_a_message_are_one_text(front: Front, content: Any, text: str) -> None:
    found = front(CHAT, chat(user(content)))
    assert isinstance(found, Understood) and found.prompt == [{"role": "user", "content": text}]


@FRONTS
def test_roles_and_their_order(front: Front) -> None:
    said = [{"role": role, "content": role} for role in ("developer", "system", "user", "assistant", "user")]
    found = front(CHAT, chat(*said))
    assert isinstance(found, Understood)
    assert [each["role"] for each in found.prompt] == ["system", "system", "user", "assistant", "user"]
    assert [each["content"] for each in found.prompt] == ["developer", "system", "user", "assistant", "user"]


@FRONTS
@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ({"prompt": "Once"}, "Once"), ({"prompt": ["Once"]}, "Once"), ({"prompt": [1, 2, 3]}, (1, 2, 3)),
        ({"prompt": [[1, 2, 3]]}, (1, 2, 3)),
    ],
)  # fmt: skip
def test_a_prompt_is_a_text_or_tokens(front: Front, body: dict[str, Any], prompt: Any) -> None:
    found = front(COMPLETIONS, body)
    assert isinstance(found, Understood) and found.prompt == prompt


@FRONTS
@pytest.mark.parametrize(
    ("given_", "texts"),
    [("a", ("a",)), (["a", "b"], ("a", "b")), ([1, 2], ((1, 2),)), ([[1], [2, 3]], ((1,), (2, 3)))],
)
def test_texts_to_embed(front: Front, given_: Any, texts: Any) -> None:
    assert front(EMBEDDINGS, {"input": given_, "token_ids": True}) == Understood(texts)


@FRONTS
@pytest.mark.parametrize("given_", [[1, 2], [[1], [2, 3]]])
def test_token_ids_are_embedded_only_if_the_client_says_that_they_are_this_model_s(front: Front, given_: Any) -> None:
    for more in ({}, {"token_ids": None}, {"token_ids": False}):
        refused = front(EMBEDDINGS, {"input": given_, **more})
        assert isinstance(refused, Refused) and (refused.field, refused.code) == ("input", "bad-field")
        assert "check_embedding_ctx_length=False" in refused.message and '"token_ids": true' in refused.message


@FRONTS
@pytest.mark.parametrize("name", OPTIONS)
def test_every_sampling_option_has_the_same_bounds(front: Front, name: str) -> None:
    option = OPTIONS[name]
    for value in (option.least, option.most, option.default):
        found = front(CHAT, chat(HELLO, **{name: value}))
        assert isinstance(found, Understood) and found.sampling == {name: value}
    step = 1 if option.kind is int else 0.001
    for value in (option.least - step, option.most + step, True, "warm", [1]):
        refused = front(CHAT, chat(HELLO, **{name: value}))
        assert isinstance(refused, Refused) and refused.field == name and refused.code == "bad-field"
        assert refused.message.startswith(f"{name}: ")


@FRONTS
@pytest.mark.parametrize(
    ("given_", "seed"), [(7, 7), (0, 0), (2**32 - 1, 0), (2**32 + 5, 6), (-2, 2**32 - 3), (2**64 - 1, 0)]
)
def test_a_seed_has_32_bits(front: Front, given_: int, seed: int) -> None:
    found = front(CHAT, chat(HELLO, seed=given_))
    assert isinstance(found, Understood) and found.sampling == {"seed": seed}


@FRONTS
@pytest.mark.parametrize(("given_", "stop"), [("END", ("END",)), (["a", "b"], ("a", "b")), ([], ()), (None, ())])
def test_stops_are_one_or_several(front: Front, given_: Any, stop: tuple[str, ...]) -> None:
    found = front(COMPLETIONS, {"prompt": "a", "stop": given_})
    assert isinstance(found, Understood) and found.stop == stop


@FRONTS
@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        ({}, None), ({"max_tokens": 5}, 5), ({"max_completion_tokens": 5}, 5), ({"max_tokens": -1}, -1),
        ({"max_tokens": 3, "max_completion_tokens": 5}, 5), ({"max_tokens": 0}, 0), ({"max_tokens": None}, None),
    ],
)  # fmt: skip
def test_the_newer_limit_counts(front: Front, limits: dict[str, Any], limit: int | None) -> None:
    found = front(CHAT, chat(HELLO, **limits))
    assert isinstance(found, Understood) and found.max_tokens == limit


# Requests that are wrong, each with the field that is named and what is said about it.
WRONG: list[tuple[str, dict[str, Any], str | None, str]] = [
    (CHAT, {"model": MODEL}, "messages", "messages is missing"),
    (CHAT, chat(), "messages", "messages: List should have at least 1 item"),
    (CHAT, chat({"content": "a"}), "messages.0.role", "messages.0.role is missing"),
    (CHAT, chat({"role": "robot", "content": "a"}), "messages.0.role", "messages.0.role: Input should be 'system'"),
    (CHAT, chat(user([{"type": "image_url", "image_url": {"url": "x"}}])), "messages.0.content.0",
     "messages.0.content.0: image_url cannot be read: the models here read text only"),
    (CHAT, chat(user([{"type": "input_audio"}])), "messages.0.content.0", "messages.0.content.0: input_audio cannot"),
    (CHAT, chat(user([{"type": "text"}])), "messages.0.content.0.text", "messages.0.content.0.text is missing"),
    (CHAT, chat(user([part("a"), {**part("b"), "cache": 1}])), "messages.0.content.1.cache", "messages.0.content.1."),
    (CHAT, chat({**HELLO, "mood": "good"}), "messages.0.mood", "messages.0.mood is not supported"),
    (CHAT, chat(HELLO, temprature=1), "temprature", "temprature is not supported; did you mean temperature?"),
    (CHAT, chat(HELLO, n=0), "n", "n: Input should be greater than or equal to 1"),
    (CHAT, chat(HELLO, stop=[""]), "stop.0", "stop.0: String should have at least 1 character"),
    (CHAT, chat(HELLO, stop=["x"] * 65), "stop", "stop: List should have at most 64 items"),
    (CHAT, chat(HELLO, stop=["x" * 1001]), "stop.0", "stop.0: String should have at most 1000 characters"),
    (CHAT, chat(HELLO, seed=2**64), "seed", "seed: Input should be less than"),
    (CHAT, chat(HELLO, seed=True), "seed", "seed: a number is needed"),
    (CHAT, chat(HELLO, max_tokens=-2), "max_tokens", "max_tokens: Input should be greater than or equal to -1"),
    (CHAT, chat(HELLO, max_tokens=2**31), "max_tokens", "max_tokens: Input should be less than or equal to 2147483647"),
    (CHAT, chat(HELLO, max_tokens=1.5), "max_tokens", "max_tokens: Input should be a valid integer"),
    (CHAT, chat(HELLO, store=True), "store", "store is not supported: nothing is kept here"),
    (CHAT, chat(HELLO, response_format={"type": "xml"}), "response_format.type", "response_format.type: Input should"),
    (CHAT, chat(HELLO, response_format={"type": "json_schema"}), "response_format", "response_format: json_schema is"),
    (CHAT, chat(HELLO, response_format={"type": "json_schema", "json_schema": {"name": "x"}}),
     "response_format.json_schema.schema", "response_format.json_schema.schema is missing"),
    (CHAT, chat(HELLO, metadata={"a": 1}), "metadata.a", "metadata.a: Input should be a valid string"),
    (CHAT, chat(HELLO, top_logprobs=2), None, "top_logprobs needs logprobs: true"),
    (COMPLETIONS, {"model": MODEL}, "prompt", "prompt is missing"),
    (COMPLETIONS, {"prompt": [True]}, "prompt.0", "prompt.0: "),
    (COMPLETIONS, {"prompt": [-1]}, "prompt.0", "prompt.0: "),
    (COMPLETIONS, {"prompt": "a", "best_of": 3}, "best_of", "best_of is not supported: "),
    (COMPLETIONS, {"prompt": "a", "suffix": "b"}, "suffix", "suffix is not supported: "),
    (EMBEDDINGS, {"input": []}, None, "input"),
    (EMBEDDINGS, {"input": "a", "dimensions": 0}, "dimensions", "dimensions: Input should be greater than or equal"),
    (EMBEDDINGS, {"input": "a", "encoding_format": "hex"}, "encoding_format", "encoding_format: Input should be"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "name", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_request_is_refused_alike(path: str, body: dict[str, Any], name: str | None, said: str) -> None:
    served, batched = in_serve(path, body), in_batch(path, body)
    assert isinstance(served, Refused) and served.message.startswith(said)
    assert served == batched
    if name is not None:
        assert served.field == name


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        (CHAT, chat(HELLO, n=2), "n"), (CHAT, chat(HELLO, stream=True), "stream"),
        (CHAT, chat(HELLO, logit_bias={"1": 2}), "logit_bias"), (CHAT, chat(HELLO, grammar='root ::= "a"'), "grammar"),
        (CHAT, chat(HELLO, mirostat=1), "mirostat"), (CHAT, chat(HELLO, logprobs=True), "logprobs"),
        (COMPLETIONS, {"prompt": "a", "echo": True}, "echo"), (COMPLETIONS, {"prompt": ["a", "b"]}, "prompt"),
        (EMBEDDINGS, {"input": "a", "truncate": True}, "truncate"),
    ],
)  # fmt: skip
def test_what_only_the_server_honours_is_refused_in_a_batch_by_its_name(
    path: str, body: dict[str, Any], name: str
) -> None:
    assert isinstance(in_serve(path, body), Understood)
    refused = in_batch(path, body)
    assert isinstance(refused, Refused) and refused.field == name and refused.message.startswith(name)


@FRONTS
def test_a_field_that_is_null_is_as_good_as_none(front: Front) -> None:
    nulls = dict.fromkeys(set(ChatRequest.model_fields) - {"messages", "model"})
    assert front(CHAT, chat(HELLO, **nulls)) == front(CHAT, chat(HELLO))
    nulls = dict.fromkeys(set(CompletionRequest.model_fields) - {"prompt"})
    assert front(COMPLETIONS, {"prompt": "a", **nulls}) == front(COMPLETIONS, {"prompt": "a"})


texts = st.text("ab é日🙂\n", max_size=6)
contents = st.one_of(texts, st.lists(st.builds(part, texts), max_size=3))
messages = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "developer", "user", "assistant"]),
        contents,
    ),
    min_size=1,
    max_size=4,
)
extras = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(-1, 6),
        "top_k": st.integers(-3, 50),
        "seed": st.integers(-(2**64), 2**65),
        "stop": st.one_of(texts, st.lists(texts, max_size=3)),
        "max_tokens": st.integers(-3, 10),
        "typical_p": st.floats(-0.5, 1.5),
    },
)


@settings(max_examples=60, deadline=None)
@given(messages, extras)
def test_any_chat_is_the_same_in_both(said: list[dict[str, Any]], more: dict[str, Any]) -> None:
    served, batched = in_serve(CHAT, chat(*said, **more)), in_batch(CHAT, chat(*said, **more))
    if isinstance(served, Understood) and served.sampling.get("seed") == -1:
        served.sampling.pop("seed")  # the two fronts draw one by themselves
    assert served == batched


def test_a_named_tool_is_called_once_whatever_the_client_says_of_parallel_calls() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    named = {"type": "function", "function": {"name": "f"}}
    asked = {"messages": [{"role": "user", "content": "x"}], "tools": tools, "parallel_tool_calls": True}
    body = parse(ChatRequest, {**asked, "tool_choice": named}).for_engine()
    assert body["tool_choice"] == "required" and body["parallel_tool_calls"] is False
    nothing = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}
    with pytest.raises(FieldError, match="allowed_tools names no tool"):
        parse(ChatRequest, {**asked, "tool_choice": nothing}).for_engine()


def test_neutral_values_are_compared_with_their_types() -> None:
    line = json.dumps({"url": "/v1/completions", "body": {"prompt": "x", "logprobs": 0}}).encode()
    _, found = parse_line(line, jsonl=True, models=())
    assert isinstance(found, FieldError) and found.field == "logprobs"


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "-1E+400", "9" * 400 + ".5"])
def test_numbers_that_are_not_finite_are_refused_even_in_free_form(number: str) -> None:
    for field_ in (
        '"temperature": %s',
        '"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": [{"maximum": %s}]}}}]',
        '"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"maximum": %s}}}',
    ):
        body = '{"messages": [{"role": "user", "content": "a"}], ' + field_ % number + "}"
        with pytest.raises(FieldError):
            parse(ChatRequest, body.encode())
    words = f"{number} is no number"
    quoted = json.dumps({"messages": [{"role": "user", "content": words}]}).encode()
    assert parse(ChatRequest, quoted).messages[0].content == words


def test_what_is_written_is_json() -> None:
    with pytest.raises(ValueError):
        encoded({"a": float("nan")})
    assert encoded({"a": "\ud800é"}) == '{"a":"?é"}'.encode()


def test_a_body_of_another_system() -> None:
    body = '{"messages": [{"role": "user", "content": "é"}]}'
    assert parse(ChatRequest, body.encode("utf-8-sig")).messages[0].content == "é"
    for encoding in ("utf-16", "utf-32", "latin-1"):
        with pytest.raises(MalformedBody):
            parse(ChatRequest, body.encode(encoding))
