"""The one rule for fields: what asks for nothing is accepted, at any depth; other unknown ones are refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from edgellm.batch.requests import CHAT, COMPLETIONS, EMBEDDINGS, parse_line
from edgellm.errors import BadRequest
from edgellm.serve.protocols.anthropic.requests import CountRequest, MessageRequest
from edgellm.serve.protocols.ollama.requests import (
    EmbeddingsRequest,
    EmbedRequest,
    GenerateRequest,
    OllamaChatRequest,
    ShowRequest,
)
from edgellm.serve.protocols.rerank import RerankRequest
from edgellm.serve.protocols.responses.requests import ResponseRequest
from edgellm.serve.protocols.tokenizer import DetokenizeRequest, TokenizeRequest
from edgellm.wire import neutral
from edgellm.wire.body import Body, FieldError, MissingField, UnknownField, UnsupportedField, parse
from edgellm.wire.openai_requests import ChatRequest, CompletionRequest, EmbeddingRequest

USER = {"role": "user", "content": "Hello"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
FUNCTION = {"name": "f", "parameters": SCHEMA}
MESSAGES = [USER, {"role": "assistant", "content": [{"type": "text", "text": "a"}], "tool_calls": [CALL]}]
BLOCKS = [
    {"type": "thinking", "thinking": "a"}, {"type": "text", "text": "a"},
    {"type": "tool_use", "id": "t", "name": "f", "input": {}},
]  # fmt: skip
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "a"}]}
ANTHROPIC = {
    "model": "m", "max_tokens": 1, "tools": [{"name": "f", "input_schema": SCHEMA}], "tool_choice": {"type": "auto"},
    "messages": [USER, {"role": "assistant", "content": BLOCKS}, {"role": "user", "content": [RESULT]}],
    "thinking": {"type": "adaptive"}, "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
}  # fmt: skip
# Every request of every protocol, with all that can be nested in it.
REQUESTS: list[tuple[type[Body], dict[str, Any]]] = [
    (ChatRequest, {
        "messages": MESSAGES, "tools": [{"type": "function", "function": FUNCTION}], "stream_options": {},
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}},
    }),
    (CompletionRequest, {"prompt": "a", "stream_options": {}}),
    (EmbeddingRequest, {"input": "a"}),
    (ResponseRequest, {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "a"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "a"},
        ],
        "tools": [{"type": "function", **FUNCTION}], "text": {"format": {"type": "text"}}, "reasoning": {},
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
    }),
    (MessageRequest, ANTHROPIC),
    (CountRequest, ANTHROPIC),
    (OllamaChatRequest, {
        "messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}],
        "tools": [{"type": "function", "function": FUNCTION}], "options": {},
    }),
    (GenerateRequest, {"prompt": "a", "options": {}}),
    (EmbedRequest, {"input": "a", "options": {}}),
    (EmbeddingsRequest, {"prompt": "a", "options": {}}),
    (ShowRequest, {"model": "m"}),
    (RerankRequest, {"query": "a", "documents": ["a", {"text": "b"}]}),
    (TokenizeRequest, {"messages": [USER]}),
    (DetokenizeRequest, {"tokens": [1]}),
]  # fmt: skip
# What is JSON of the client's own, with nulls that mean something.
OPAQUE = ("input_schema", "parameters", "schema", "arguments", "input")


def objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all objects of a request."""
    if isinstance(value, dict):
        yield path
        for name, each in value.items():
            if name not in OPAQUE or not isinstance(each, dict):
                yield from objects(each, (*path, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from objects(each, (*path, index))


def added(body: dict[str, Any], path: tuple[Any, ...], fields: dict[str, Any]) -> dict[str, Any]:
    """The request with fields added to one of its objects."""
    whole: Any = json.loads(json.dumps(body))
    place = whole
    for step in path:
        place = place[step]
    place.update(fields)
    return whole  # type: ignore[no-any-return]


PLACES = [
    pytest.param(kind, body, path, id=f"{kind.__name__}:{'.'.join(map(str, path))}")
    for kind, body in REQUESTS
    for path in objects(body)
]


@pytest.mark.parametrize(("kind", "body", "path"), PLACES)
def test_null_and_empty_fields_that_nobody_knows_are_missing(
    kind: type[Body], body: dict[str, Any], path: tuple[Any, ...]
) -> None:
    nothing = {"nobody_knows": None, "annotations": None, "a": "", "b": [], "c": {}}
    more = added(body, path, nothing)
    assert parse(kind, json.dumps(more).encode()) == parse(kind, more) == parse(kind, body)


@pytest.mark.parametrize(("kind", "body"), REQUESTS, ids=lambda value: getattr(value, "__name__", ""))
def test_an_unknown_field_that_says_something_is_refused_by_its_name(kind: type[Body], body: dict[str, Any]) -> None:
    with pytest.raises(UnknownField) as refused:
        parse(kind, json.dumps({**body, "nobody_knows": 1}).encode())
    assert refused.value.field == "nobody_knows"


TABLE = sorted(neutral._FIELDS.items())


@pytest.mark.parametrize(("kind", "body"), REQUESTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_field_that_asks_for_what_is_so_anyway_is_accepted(kind: type[Body], body: dict[str, Any]) -> None:
    known = set(kind.model_fields)
    for name, (values, why) in TABLE:
        if name in known:
            continue
        for value in (*values, None):
            assert parse(kind, {**body, name: value}) == parse(kind, body), (name, value)
        if why and name not in kind.ignored:
            with pytest.raises(UnsupportedField) as refused:
                parse(kind, {**body, name: {"a": 1}})
            assert refused.value.field == name and refused.value.what == f"{name} is not supported: {why}"


def test_values_are_compared_as_json_has_them() -> None:
    assert neutral.is_neutral("n", 1) and neutral.is_neutral("n", 1.0)
    assert not neutral.is_neutral("n", True) and not neutral.is_neutral("n", 0)
    assert neutral.is_neutral("logprobs", False) and not neutral.is_neutral("logprobs", 0)
    assert neutral.is_neutral("web_search_options", None) and not neutral.is_neutral("web_search_options", {})


@pytest.mark.parametrize(
    ("url", "body"),
    [(CHAT, {"messages": [USER]}), (COMPLETIONS, {"prompt": "a"}), (EMBEDDINGS, {"input": "a"})],
)
def test_a_row_of_a_batch_follows_the_same_rule(url: str, body: dict[str, Any]) -> None:
    def row(**more: Any) -> Any:
        line = {"custom_id": None, "method": None, "url": url, "body": {**body, **more}, "nobody_knows": None}
        return parse_line(json.dumps(line).encode(), jsonl=True, models=())[1]

    plain = row()
    assert not isinstance(plain, BadRequest)
    for name, (values, _) in TABLE:
        for value in (None, *values) if name not in body else ():
            assert row(**{name: value}) == plain, (name, value)
    refused = row(nobody_knows=1)
    assert isinstance(refused, FieldError) and refused.field == "nobody_knows"
    plain_line = parse_line(b'{"prompt": "a", "url": null, "body": null, "system": null}', jsonl=True, models=())[1]
    assert not isinstance(plain_line, BadRequest)


@pytest.mark.parametrize("name", ["messages", "model"])
def test_a_needed_field_that_is_null_is_missing(name: str) -> None:
    with pytest.raises(MissingField) as missing:
        parse(MessageRequest, {**ANTHROPIC, name: None})
    assert missing.value.field == name


def test_errors_name_the_field_and_no_branch_of_a_union() -> None:
    for kind, body, field in (
        (ChatRequest, {"messages": [{**USER, "content": [{"type": "text", "text": "a", "x": 1}]}]}, "content.0.x"),
        (ChatRequest, {"messages": [{**USER, "content": [{"type": "text"}]}]}, "content.0.text"),
        (ChatRequest, {"messages": [{**USER, "content": [{"type": "video"}]}]}, "content.0.type"),
        (ChatRequest, {"messages": [{**USER, "content": [{"text": "a"}]}]}, "content.0.type"),
        (MessageRequest, {**ANTHROPIC, "messages": [{"role": "user", "content": [{**RESULT, "x": 1}]}]}, "0.x"),
        (MessageRequest, {**ANTHROPIC, "tools": [{"name": "f"}]}, "tools.0.input_schema"),
        (ResponseRequest, {"input": "a", "tools": [{"name": "f"}]}, "tools.0.type"),
        (ResponseRequest, {"input": [{"type": "item_reference", "id": "a"}]}, "input.0.type"),
    ):
        with pytest.raises(FieldError) as refused:
            parse(kind, json.dumps(body).encode())
        assert (refused.value.field or "").endswith(field) and "str" not in str(refused.value.field)
        assert refused.value.what.startswith(f"{refused.value.field}")


@pytest.mark.parametrize("name", ["audio", "function_call", "images"])
def test_what_carries_a_part_of_an_earlier_answer_is_refused(name: str) -> None:
    answer = {"role": "assistant", "content": "a", name: {"id": "x"}}
    with pytest.raises(FieldError) as refused:
        parse(ChatRequest, {"messages": [USER, answer, USER]})
    assert refused.value.field == f"messages.1.{name}"


def test_what_other_servers_and_sdks_add_to_an_answer_is_ignored() -> None:
    plain = {"role": "assistant", "content": "a"}
    more = {
        "id": "msg_1", "annotations": [{"type": "url_citation"}], "provider_specific_fields": {"a": 1}, "weight": 1,
        "reasoning_details": [{"text": "a"}], "thinking_blocks": [{"thinking": "a"}], "created": 5, "parsed": {"a": 1},
    }  # fmt: skip
    asked = parse(ChatRequest, {"messages": [USER, {**plain, **more}, USER]}).for_engine()
    assert asked["messages"] == parse(ChatRequest, {"messages": [USER, plain, USER]}).for_engine()["messages"]
    # Their name for thoughts is understood, and a refusal is what was said.
    thought = parse(ChatRequest, {"messages": [USER, {**plain, "reasoning": "hm"}]}).for_engine()["messages"][1]
    assert thought == {**plain, "reasoning_content": "hm"}
    refusal = parse(ChatRequest, {"messages": [USER, {"role": "assistant", "refusal": "No."}]}).for_engine()
    assert refusal["messages"][1] == {"role": "assistant", "content": "No."}


def test_the_blocks_of_langchain_s_messages_are_read() -> None:
    """As its streams leave them, with the index of each block."""
    parts = [{"type": "text", "text": "a", "index": 0, "annotations": [], "id": "msg_1"}, {"type": "text", "text": "b"}]
    said = {"role": "assistant", "content": parts, "name": None}
    assert parse(ChatRequest, {"messages": [USER, said, USER]}).for_engine()["messages"][1]["content"] == "a\nb"
    blocks = [
        {"type": "text", "text": "a", "index": 0},
        {"type": "tool_use", "id": "t", "name": "f", "input": {}, "partial_json": "{}", "index": 1},
    ]
    history = [USER, {"role": "assistant", "content": blocks}, {"role": "user", "content": [{**RESULT, "index": 0}]}]
    sent = parse(MessageRequest, {**ANTHROPIC, "messages": history}).for_engine()["messages"]
    assert [each["role"] for each in sent] == ["user", "assistant", "tool"]


def test_an_entry_that_is_null_is_missing() -> None:
    body = {"messages": [USER], "logit_bias": {"1": None, "2": 5}, "metadata": {"a": None, "b": "c"}}
    asked = parse(ChatRequest, body)
    assert asked.logit_bias == {"2": 5} and asked.metadata == {"b": "c"}


def test_a_keyword_of_a_schema_that_is_null_is_missing_and_null_as_data_stays() -> None:
    schema = {
        "type": "object", "required": None, "$defs": None,
        "properties": {"a": {"enum": [None, 1], "default": None, "items": None}, "const": {"const": None}},
    }  # fmt: skip
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    sent = parse(ChatRequest, {"messages": [USER], "tools": [tool]}).for_engine()["tools"][0]["function"]["parameters"]
    assert sent == {
        "type": "object", "properties": {"a": {"enum": [None, 1], "default": None}, "const": {"const": None}},
    }  # fmt: skip
    deep: Any = {}
    for _ in range(5000):
        deep = {"items": deep}
    with pytest.raises(FieldError, match="nested too deeply"):
        parse(
            ChatRequest,
            {"messages": [USER], "tools": [{"type": "function", "function": {"name": "f", "parameters": deep}}]},
        )


def test_anthropic_s_fields_of_current_agents() -> None:
    marked = {"type": "ephemeral", "ttl": "1h", "scope": "global"}
    tool = {
        "name": "f", "input_schema": SCHEMA, "type": "custom", "defer_loading": True, "input_examples": [{"city": "a"}],
        "eager_input_streaming": True, "allowed_callers": ["direct"], "cache_control": marked,
    }  # fmt: skip
    said = [
        {"type": "redacted_thinking", "data": "xyz"}, {"type": "text", "text": "a", "citations": [{"type": "a"}]},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": None}, "caller": {"type": "direct"}},
    ]  # fmt: skip
    found = {**RESULT, "content": [{"type": "tool_reference", "tool_name": "g"}], "cache_control": marked}
    asked = parse(MessageRequest, {
        "model": "m", "max_tokens": 1, "tools": [tool, {"type": "web_search_20250305", "name": "web_search"}],
        "messages": [USER, {"role": "assistant", "content": said}, {"role": "user", "content": [found]}],
        "thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "max"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "cache_control": marked, "metadata": {"user_id": "a"}, "betas": ["a"], "speed": "standard",
    })  # fmt: skip
    body = asked.for_engine()
    assert [each["function"]["name"] for each in body["tools"]] == ["f"] and not asked.shows_thoughts
    assert body["reasoning_effort"] == "high", "no template knows a higher one"
    call, result = body["messages"][1:]
    assert call["content"] == "a" and call["tool_calls"][0]["function"]["arguments"] == '{"a": null}'
    assert result == {"role": "tool", "tool_call_id": "t", "content": "g"}


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"thinking": {"type": "adaptive", "display": "loud"}}, "thinking.display"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"mcp_servers": [{"type": "url", "name": "a b", "url": "x"}]}, "mcp_servers.0.name"),
        ({"container": "a"}, "container"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [{**RESULT, "content": [{"type": "image"}]}]}]}, "0.content.0"),
        ({"messages": [{"role": "assistant", "content": [{"type": "container_upload"}]}]}, "messages.0.content.0.type"),
        (
            {"tool_choice": {"type": "any"}, "tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "tool_choice",
        ),
    ],
)
def test_anthropic_s_fields_with_an_effect_that_is_not_here(more: dict[str, Any], field: str) -> None:
    with pytest.raises(FieldError) as refused:
        parse(MessageRequest, {**ANTHROPIC, **more}).for_engine()
    assert (refused.value.field or "").endswith(field)


def test_a_named_tool_is_called_once_in_responses_too() -> None:
    body = {"input": "a", "tools": [{"type": "function", "name": "f"}], "parallel_tool_calls": True}
    sent = parse(ResponseRequest, {**body, "tool_choice": {"type": "function", "name": "f"}}).for_engine()
    assert sent["tool_choice"] == "required" and sent["parallel_tool_calls"] is False
