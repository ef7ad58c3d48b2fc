"""Tools and a schema in one request: the answer is a call, or it matches the schema."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import jsonschema
import openai
import pytest

from edgellm.serve.answer.tools_and_schema import settled
from edgellm.serve.http.problems import Problem
from tests.serve.recordings import events, folded
from tests.serve.server import Server
from tests.serve.test_service import CHAT, MESSAGES, house, lines, within

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "maximum": 200}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": FUNCTION}]
FORM = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
BOTH = {**MESSAGES, "tools": TOOLS, "response_format": FORM}
# The protocols that have both.
PROTOCOLS: dict[str, dict[str, Any]] = {
    CHAT: BOTH,
    "/v1/responses": {
        "input": "Hello", "tools": [{"type": "function", **FUNCTION}],
        "text": {"format": {"type": "json_schema", "name": "person", "schema": SCHEMA}},
    },
    "/v1/messages": {
        "model": "fake", "max_tokens": 64, **MESSAGES, "tools": [{"name": "weather", "input_schema": PARAMETERS}],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    },
    "/api/chat": {**MESSAGES, "tools": TOOLS, "format": SCHEMA},
}  # fmt: skip


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: a socket's has at most 100 characters."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PROTOCOLS)
def test_a_model_that_calls_is_not_constrained(directory: Path, path: str, stream: bool) -> None:
    async def work() -> None:
        async with house(directory, stream="chat_call", by_schema="completion") as made:
            answer = await made.post(path, {**PROTOCOLS[path], "stream": stream})
            assert answer.status == 200 and b"weather" in answer.body and b"Paris" in answer.body
            (asked,) = made.asked
            assert asked["tools"] and "response_format" not in asked

    within(work())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PROTOCOLS)
def test_a_model_that_writes_does_so_by_the_schema(directory: Path, path: str, stream: bool) -> None:
    async def work() -> None:
        async with house(directory, stream="chat_characters", by_schema="chat") as made:
            answer = await made.post(path, {**PROTOCOLS[path], "stream": stream})
            assert answer.status == 200
            by_schema, first = folded(events("chat")).choice.text, folded(events("chat_characters")).choice.text
            texts = [json.dumps(each, ensure_ascii=False) for each in (lines(answer) if stream else [answer.json()])]
            if stream:
                pieces = [piece for piece in by_schema.split() if piece.isalpha()]
                assert all(any(piece in text for text in texts) for piece in pieces)
            else:
                assert json.dumps(by_schema, ensure_ascii=False)[1:-1] in texts[0]
            assert not any(first[:8] in text for text in texts), "nothing of the first attempt is shown"
            began, again = made.asked
            assert "response_format" not in began and "tool_choice" not in began
            assert again["tool_choice"] == "none" and again["tools"] == began["tools"]
            assert again["messages"] == began["messages"], "the worker has the prompt in its cache"
            assert made.metrics.models["fake"].ended == {"itself": 1}

    within(work())


def test_an_answer_that_is_cut_off_before_it_begins_stays_so(directory: Path) -> None:
    async def work() -> None:
        async with house(directory, stream="chat_call_cut", by_schema="chat") as made:
            answer = await made.post(CHAT, BOTH)
            assert answer.json()["choices"][0]["finish_reason"] == "length" and len(made.asked) == 1

    within(work())


def test_what_is_settled_before_the_model_begins() -> None:
    assert settled(BOTH) == BOTH
    for alone in (
        {**BOTH, "tools": []},
        {**BOTH, "response_format": {"type": "text"}},
        {**BOTH, "tool_choice": "none"},
    ):
        assert settled(alone) == alone
    must_call = settled({**BOTH, "tool_choice": "required"})
    assert "response_format" not in must_call and must_call["tools"] == TOOLS
    result = {"role": "tool", "tool_call_id": "c", "content": "It is sunny."}
    assert settled({**BOTH, "messages": [*MESSAGES["messages"], result]})["tool_choice"] == "none"
    with pytest.raises(Problem) as several:
        settled({**BOTH, "n": 2})
    assert several.value.field == "n" and several.value.status == 400


@pytest.mark.engine
@pytest.mark.model
def test_typed_agents_get_a_call_or_what_they_expect(server: Server) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    asked: Any = {"model": "smollm2", "temperature": 0, "max_tokens": 60, "tools": TOOLS, "response_format": FORM}
    messages: Any = [{"role": "user", "content": "Bob is 34. What are his name and age?"}]
    message = client.chat.completions.create(**asked, messages=messages).choices[0].message
    if message.tool_calls:
        assert "city" in json.loads(message.tool_calls[0].function.arguments)  # type: ignore[union-attr]
    else:
        jsonschema.validate(json.loads(message.content or ""), SCHEMA)
    must = client.chat.completions.create(**asked, messages=messages, tool_choice="required").choices[0].message
    assert must.tool_calls  # one or several: a client that does not forbid parallel calls may get both
    results = [{"role": "tool", "tool_call_id": call.id, "content": "Bob is 34."} for call in must.tool_calls]
    messages += [must.model_dump(), *results]
    with client.chat.completions.stream(**asked, messages=messages) as stream:
        final = stream.get_final_completion().choices[0].message
    jsonschema.validate(json.loads(final.content or ""), SCHEMA)
    told = anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0).messages.create(
        model="smollm2", max_tokens=60, messages=[{"role": "user", "content": "Bob is 34."}],
        tools=[{"name": "weather", "input_schema": PARAMETERS}], tool_choice={"type": "none"},
        extra_body={"temperature": 0, "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    )  # fmt: skip
    assert told.content[0].type == "text"
    jsonschema.validate(json.loads(told.content[0].text), SCHEMA)
