"""Answers as their own SDKs have them, sent back as history: the ordinary way to hold a conversation."""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ollama
import pytest
from anthropic.types import Message
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from tests.serve.test_service import CHAT, house, within

QUESTION = {"role": "user", "content": "How is the weather in Paris?"}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "weather", "parameters": PARAMETERS}
RESULT = "It is sunny."
# What a model may answer with: text, one call and several, thoughts.
RECORDINGS = ["chat", "chat_call", "chat_calls", "chat_call_text", "chat_thought"]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: a socket's has at most 100 characters."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def chat_history(answer: Any) -> list[Any]:
    message = ChatCompletion.model_validate(answer).choices[0].message
    results = [{"role": "tool", "tool_call_id": call.id, "content": RESULT} for call in message.tool_calls or ()]
    return [message.model_dump(), *(results or [QUESTION])]


def responses_history(answer: Any) -> list[Any]:
    output = Response.model_validate(answer).output
    items = [each.model_dump() for each in output]
    calls = [each for each in items if each["type"] == "function_call"]
    results = [{"type": "function_call_output", "call_id": call["call_id"], "output": RESULT} for call in calls]
    return [*items, *(results or [QUESTION])]


def anthropic_history(answer: Any) -> list[Any]:
    blocks = [each.model_dump() for each in Message.model_validate(answer).content]
    results = [
        {"type": "tool_result", "tool_use_id": each["id"], "content": RESULT}
        for each in blocks
        if each["type"] == "tool_use"
    ]
    return [{"role": "assistant", "content": blocks}, {"role": "user", "content": results or QUESTION["content"]}]


def ollama_history(answer: Any) -> list[Any]:
    message = ollama.ChatResponse.model_validate(answer).message
    names = [call.function.name for call in message.tool_calls or ()]
    results = [{"role": "tool", "tool_name": name, "content": RESULT} for name in names]
    return [message.model_dump(), *(results or [QUESTION])]


PROTOCOLS: dict[str, tuple[str, dict[str, Any], Callable[[Any], list[Any]]]] = {
    CHAT: ("messages", {"tools": [{"type": "function", "function": FUNCTION}]}, chat_history),
    "/v1/responses": ("input", {"tools": [{"type": "function", **FUNCTION}]}, responses_history),
    "/v1/messages": (
        "messages",
        {"model": "fake", "max_tokens": 64, "tools": [{"name": "weather", "input_schema": PARAMETERS}]},
        anthropic_history,
    ),
    "/api/chat": ("messages", {"tools": [{"type": "function", "function": FUNCTION}], "stream": False}, ollama_history),
}


@pytest.mark.parametrize("recording", RECORDINGS)
def test_an_answer_comes_back_as_its_sdk_dumps_it(directory: Path, recording: str) -> None:
    async def work() -> None:
        async with house(directory, stream=recording) as made:
            said: list[Any] = []
            for path, (field, body, history) in PROTOCOLS.items():
                first = await made.post(path, {**body, field: [QUESTION]})
                assert first.status == 200, first.body
                answered = history(first.json())
                second = await made.post(path, {**body, field: [QUESTION, *answered]})
                assert second.status == 200, (path, second.body)
                said.append([_plain(message) for message in made.asked[-1]["messages"]])
            # Whatever the protocol, the model is shown the same conversation.
            assert all(each == said[0] for each in said[1:]), said

    within(work())


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message without the ids and the whitespace that protocols treat in their own ways."""
    calls = [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls") or ()
    ]
    thoughts = message.get("reasoning_content") or ""
    return {"role": message["role"], "content": message["content"] or "", "calls": calls, "thoughts": thoughts}
