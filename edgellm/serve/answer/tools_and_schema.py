"""Tools and a schema in one request: the answer is a tool call, or a text that matches the schema.

body = settled(body)
if has_both(body):
    events = call_or_answer(events_without_the_schema, end, answer_by_the_schema)

llama-server can constrain an answer by the tools or by a schema, but it cannot leave the choice to the model. So the
model begins without the schema. If it begins a call, that is the answer. If it begins to write, it writes anew, by the
schema, from the same prompt, which the worker has in its cache.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from edgellm.run.events import Call, End, Event, Text
from edgellm.serve.http.problems import Problem

# Each of them constrains the whole answer.
CONSTRAINTS = ("response_format", "json_schema", "grammar")


def settled(body: dict[str, Any]) -> dict[str, Any]:
    """The body of a chat, without its tools or its schema where only one of them can count.

    A call that must come leaves no room for the schema. After a tool's result the answer is due, by the schema.

    Raises:
        Problem: several answers at once (400).
    """
    if not _offers_tools(body) or not has_schema(body):
        return body
    if body.get("tool_choice") == "required":
        return calling(body)
    if body["messages"][-1]["role"] == "tool":
        return answering(body)
    if body.get("n", 1) > 1:
        raise Problem(400, "n: tools and a schema together give one answer, not several", code="bad-field", field="n")
    return body


def has_both(body: Mapping[str, Any]) -> bool:
    """Whether the model may call a tool, or else must answer by a schema; zero tokens are neither."""
    return _offers_tools(body) and has_schema(body) and body.get("max_tokens") != 0


def calling(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the first attempt: with the tools, and without the schema."""
    return {name: value for name, value in body.items() if name not in CONSTRAINTS}


def answering(body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the second one: with the schema. The model sees the tools as before, so the prompt is the same."""
    return {**body, "tool_choice": "none"}


async def call_or_answer(
    events: AsyncIterator[Event],
    end: Callable[[], Awaitable[None]],
    answer: Callable[[], Awaitable[AsyncIterator[Event]]],
) -> AsyncIterator[Event]:
    """The events of a tool call, or those of an answer by the schema.

    Args:
        events: the first attempt; nothing of it is passed on until it is a call, or has reached its limit.
        end: asks the worker to end it, so that its slot and the cached prompt are free.
        answer: begins the second one.
    """
    held: list[Event] = []
    async for event in events:
        held.append(event)
        if isinstance(event, Call) or (isinstance(event, End) and (event.reason == "length" or event.cut)):
            for each in held:
                yield each
            async for each in events:
                yield each
            return
        if isinstance(event, Text) and event.text.strip():
            await end()
            async for _ in events:
                pass
    async for event in await answer():
        yield event


def _offers_tools(body: Mapping[str, Any]) -> bool:
    return bool(body.get("tools")) and body.get("tool_choice") != "none"


def has_schema(body: Mapping[str, Any]) -> bool:
    """Whether the answer must have a form."""
    form = body.get("response_format") or {}
    return form.get("type", "text") != "text" or bool(body.get("json_schema") or body.get("grammar"))
