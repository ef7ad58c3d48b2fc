"""Anthropic's Messages API, with the anthropic package."""

from typing import Any, get_type_hints

import anthropic
import pytest
from anthropic.types import message_count_tokens_params, message_create_params

from edgellm.serve.protocols.anthropic.requests import CountRequest, MessageRequest
from tests.serve.server import Server

pytestmark = [pytest.mark.engine, pytest.mark.model]
QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"name": "weather", "description": "a city's", "input_schema": CITY}
GREEDY = {"temperature": 0}


@pytest.fixture(scope="module")
def client(server: Server) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0)


def test_every_field_of_theirs_is_known_or_refused_by_name() -> None:
    refused = {"container", "inference_geo", "service_tier", "speed"}
    theirs = set(get_type_hints(message_create_params.MessageCreateParamsBase))
    assert theirs - set(MessageRequest.model_fields) - set(MessageRequest.ignored) == refused
    counted = set(get_type_hints(message_count_tokens_params.MessageCountTokensParams))
    assert counted - set(CountRequest.model_fields) - set(CountRequest.ignored) == {"speed"}


def test_a_message_whole_and_streamed(client: anthropic.Anthropic) -> None:
    system: Any = [{"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral"}}]
    asked: Any = {"model": "smollm2", "max_tokens": 20, "messages": QUESTION, "system": system, "extra_body": GREEDY}
    whole = client.messages.create(**asked)
    assert whole.stop_reason == "end_turn" and whole.content[0].type == "text" and "Paris" in whole.content[0].text
    with client.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn" and final.usage.output_tokens == whole.usage.output_tokens
    asked = {name: asked[name] for name in ("model", "messages", "system")}
    n_prompt = whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0)
    assert client.messages.count_tokens(**asked).input_tokens == n_prompt


def test_why_an_answer_ended(client: anthropic.Anthropic) -> None:
    asked: Any = {"model": "smollm2", "messages": QUESTION, "extra_body": GREEDY}
    assert client.messages.create(**asked, max_tokens=2).stop_reason == "max_tokens"
    stopped = client.messages.create(**asked, max_tokens=20, stop_sequences=["Paris"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "Paris")
    ended = client.messages.create(**asked, max_tokens=20, stop_sequences=["Berlin"])
    assert (ended.stop_reason, ended.stop_sequence) == ("end_turn", None)


def test_a_call_and_its_result(client: anthropic.Anthropic) -> None:
    messages: Any = [{"role": "user", "content": "How is the weather in Paris?"}]
    asked: Any = {"model": "smollm2", "max_tokens": 80, "tools": [WEATHER], "messages": messages, "extra_body": GREEDY}
    with client.messages.stream(**asked, tool_choice={"type": "tool", "name": "weather"}) as stream:
        final = stream.get_final_message()
    (call,) = final.content
    assert final.stop_reason == "tool_use" and call.type == "tool_use" and "Paris" in str(call.input["city"])
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "It is sunny."}]}
    messages += [{"role": "assistant", "content": final.content}, {"role": "user", "content": [result]}]
    answer = client.messages.create(**{**asked, "max_tokens": 8}, tool_choice={"type": "none"})
    assert answer.content[0].type == "text"


def test_a_loop_is_ended(server: Server) -> None:
    said = "Yes, I am good. " * 12
    messages = [{"role": "user", "content": said}, {"role": "assistant", "content": said}]
    body = {"model": "smollm2", "messages": messages, "max_tokens": 1000, "temperature": 0, "ignore_eos": True}
    reply = server.post("/v1/messages", body).json()
    assert reply["stop_reason"] == "max_tokens" and reply["edgellm"]["finish_reason"] == "repetition"
    assert reply["usage"]["output_tokens"] < 400
    assert reply["content"][0]["text"].count(reply["edgellm"]["repeated"]) < reply["edgellm"]["repetitions"]


def test_an_answer_that_was_begun_is_continued(server: Server) -> None:
    begun = {"role": "assistant", "content": "The capital of France is"}
    body = {"model": "smollm2", "messages": [*QUESTION, begun], "max_tokens": 8, "temperature": 0}
    text = server.post("/v1/messages", body).json()["content"][0]["text"]
    assert "Paris" in text and "capital of France is" not in text


def test_errors_have_their_shape(client: anthropic.Anthropic, server: Server) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="missing", max_tokens=1, messages=QUESTION)
    image: Any = [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "x"}}]}]
    with pytest.raises(anthropic.BadRequestError, match="text only"):
        client.messages.create(model="smollm2", max_tokens=1, messages=image)
    reply = server.post("/v1/messages", {"model": "smollm2", "messages": QUESTION, "max_token": 1})
    assert reply.status == 400 and reply.json()["type"] == "error"
    assert reply.json()["error"]["type"] == "invalid_request_error"
