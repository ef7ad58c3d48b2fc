"""OpenAI's Responses API, with the openai package."""

import json
from typing import Any

import openai
import pytest

from tests.serve.server import Server

pytestmark = [pytest.mark.engine, pytest.mark.model]
QUESTION = "What is the capital of France?"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "name": "weather", "description": "a city's", "parameters": CITY, "strict": True}


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_an_answer(client: openai.OpenAI) -> None:
    reply = client.responses.create(model="smollm2", input=QUESTION, temperature=0, max_output_tokens=20, store=False)
    assert "Paris" in reply.output_text and reply.status == "completed" and reply.usage
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens
    counted = client.responses.input_tokens.count(model="smollm2", input=QUESTION)
    assert counted.input_tokens == reply.usage.input_tokens


def test_a_stream_has_every_event_in_its_place(client: openai.OpenAI) -> None:
    asked: Any = {"model": "smollm2", "input": [{"role": "user", "content": QUESTION}], "temperature": 0}
    events = list(client.responses.create(**asked, max_output_tokens=20, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    names = [event.type.removeprefix("response.") for event in events]
    assert names[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert names[-4:] == ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert set(names[4:-4]) == {"output_text.delta"}
    with client.responses.stream(**asked, max_output_tokens=20) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text and "Paris" in text


def test_a_call_and_its_result(client: openai.OpenAI) -> None:
    asked: Any = {"model": "smollm2", "tools": [WEATHER], "temperature": 0, "max_output_tokens": 80}
    conversation: Any = [{"role": "user", "content": "How is the weather in Paris?"}]
    with client.responses.stream(
        **asked, input=conversation, tool_choice={"type": "function", "name": "weather"}
    ) as stream:
        arguments = "".join(e.delta for e in stream if e.type == "response.function_call_arguments.delta")
        reply = stream.get_final_response()
    (call,) = reply.output
    assert call.type == "function_call" and call.name == "weather" and call.arguments == arguments
    assert "Paris" in json.loads(arguments)["city"]
    conversation += [
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "It is sunny."},
    ]
    asked["max_output_tokens"] = 8
    assert client.responses.create(**asked, input=conversation, tool_choice="none").output_text


def test_an_answer_by_a_schema(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"size": {"enum": ["small", "large"]}}, "required": ["size"]}
    form: Any = {"format": {"type": "json_schema", "name": "size", "schema": schema, "strict": True}}
    reply = client.responses.create(model="smollm2", input="Is Paris large?", text=form, max_output_tokens=40)
    assert json.loads(reply.output_text)["size"] in ("small", "large")


def test_log_probabilities(client: openai.OpenAI) -> None:
    reply = client.responses.create(
        model="smollm2", input=QUESTION, max_output_tokens=4, include=["message.output_text.logprobs"], top_logprobs=2
    )
    (item,) = reply.output
    assert item.type == "message" and item.content[0].type == "output_text"
    logprobs = item.content[0].logprobs or []
    assert "".join(each.token for each in logprobs) == reply.output_text
    assert all(len(each.top_logprobs) == 2 for each in logprobs)


def test_what_is_cut_off_says_so(client: openai.OpenAI) -> None:
    reply = client.responses.create(model="smollm2", input=QUESTION, temperature=0, max_output_tokens=3)
    assert reply.status == "incomplete" and reply.incomplete_details
    assert reply.incomplete_details.reason == "max_output_tokens"
    last = list(client.responses.create(model="smollm2", input=QUESTION, max_output_tokens=3, stream=True))[-1]
    assert last.type == "response.incomplete"


def test_a_time_limit_is_told(server: Server) -> None:
    body = {"model": "smollm2", "input": "Count to a thousand.", "max_time": 0.5, "ignore_eos": True}
    reply = server.post("/v1/responses", {**body, "loop_guard": False}).json()
    assert reply["status"] == "incomplete" and reply["edgellm"] == {"finish_reason": "time"}
    assert reply["output"][0]["content"][0]["text"]


def test_a_prompt_that_is_too_long_is_cut_only_if_asked(server: Server) -> None:
    old = {"role": "user", "content": "All the cats. " * 700}
    body = {"model": "smollm2", "input": [old, {"role": "user", "content": QUESTION}], "max_output_tokens": 2}
    refused = server.post("/v1/responses", body)
    assert refused.status == 400 and refused.json()["error"]["n_prompt_tokens"] > 2048
    assert server.post("/v1/responses", {**body, "truncation": "auto"}).json()["usage"]["input_tokens"] < 2048


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("previous_response_id", "resp_1"),
        ("background", True),
        ("store", True),
        ("tools", [{"name": "web_search"}]),
        ("input", [{"type": "item_reference", "id": "x"}]),
        ("input", [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]),
        ("conversation", "conv_1"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(server: Server, field: str, value: Any) -> None:
    reply = server.post("/v1/responses", {"model": "smollm2", "input": "a", field: value})
    assert reply.status == 400 and reply.json()["error"]["param"].split(".")[0] == field
