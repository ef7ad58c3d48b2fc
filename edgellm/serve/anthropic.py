"""Anthropic's Messages API: POST /v1/messages, and /v1/messages/count_tokens.

routes = anthropic.ROUTES
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgellm.serve.answers import Ending
from edgellm.serve.anthropic_requests import CountRequest, MessageRequest
from edgellm.serve.blocks import Block, Blocks, Change, Kind, Step
from edgellm.serve.catalog import Kind as Does
from edgellm.serve.openapi import takes
from edgellm.serve.requests import parsed
from edgellm.serve.responding import Output, Working
from edgellm.serve.service import service_of
from edgellm.serve.telling import count_tokens, tell

_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


@takes(MessageRequest, streams=True)
async def create(request: Request) -> Response:
    """POST /v1/messages: an answer to a conversation."""
    service, asked = service_of(request), parsed(MessageRequest, await request.body())
    model = service.model(asked.model)
    body = asked.for_worker()  # before a model is loaded for it

    async def work(out: Output) -> None:
        async with service.pool.lease(model.name, Does.CHAT) as worker:
            await tell(service, worker, asked, body, MessageTeller(asked, model.name), out)

    return Working(work)


@takes(CountRequest)
async def count(request: Request) -> Response:
    """POST /v1/messages/count_tokens: how many tokens a request would have."""
    service, asked = service_of(request), parsed(CountRequest, await request.body())
    model = service.model(asked.model)
    body = asked.prompt()  # before a model is loaded for it

    async def work(out: Output) -> None:
        async with service.pool.lease(model.name, Does.CHAT) as worker:
            await out.json({"input_tokens": await count_tokens(worker, body)})

    return Working(work)


class MessageTeller:
    """The words of this API."""

    def __init__(self, asked: MessageRequest, model: str) -> None:
        self.blocks = Blocks()
        self._asked = asked
        self._model = model
        self._id = f"msg_{secrets.token_hex(12)}"

    def begin(self) -> Iterator[dict[str, Any]]:
        """An empty message."""
        yield {"type": "message_start", "message": self._message([], None)}

    def change(self, change: Change) -> Iterator[dict[str, Any]]:
        """A block begins, grows or ends."""
        block = change.block
        if change.step is Step.OPEN:
            yield {"type": "content_block_start", "index": block.index, "content_block": self._empty(block)}
        elif change.step is Step.MORE:
            yield self._delta(block, _delta(block.kind, change.piece))
        else:
            if block.kind is Kind.THOUGHT:
                yield self._delta(block, {"type": "signature_delta", "signature": ""})
            yield {"type": "content_block_stop", "index": block.index}

    def end(self, ending: Ending) -> Iterator[dict[str, Any]]:
        """Why it ended, and all counts."""
        reason = self._reason()
        ours = {"edgellm": ending.as_field()} if ending.reason else {}
        yield {"type": "message_delta", "delta": reason, "usage": self._usage(), "timings": self.blocks.timings, **ours}
        yield {"type": "message_stop"}

    def whole(self, ending: Ending) -> dict[str, Any]:
        """The message."""
        message = self._message([self._full(block) for block in self.blocks.list], self._reason())
        message["timings"] = self.blocks.timings
        return message | ({"edgellm": ending.as_field()} if ending.reason else {})

    def _message(self, content: list[dict[str, Any]], reason: dict[str, Any] | None) -> dict[str, Any]:
        about = {"id": self._id, "type": "message", "role": "assistant", "model": self._model, "content": content}
        return {**about, **(reason or {"stop_reason": None, "stop_sequence": None}), "usage": self._usage()}

    def _reason(self) -> dict[str, Any]:
        blocks = self.blocks
        if blocks.finish_reason == "stop" and blocks.stopped_by in (self._asked.stop_sequences or ()):
            return {"stop_reason": "stop_sequence", "stop_sequence": blocks.stopped_by}
        return {"stop_reason": _REASONS.get(blocks.finish_reason, "end_turn"), "stop_sequence": None}

    def _usage(self) -> dict[str, Any]:
        """Anthropic's `input_tokens` are those that were not in the cache."""
        blocks = self.blocks
        return {
            "input_tokens": blocks.n_prompt - blocks.n_cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": blocks.n_cached,
            "output_tokens": blocks.n_answer,
        }

    def _empty(self, block: Block) -> dict[str, Any]:
        if block.kind is Kind.CALL:
            return {"type": "tool_use", "id": block.call_id, "name": block.name, "input": {}}
        if block.kind is Kind.THOUGHT:
            return {"type": "thinking", "thinking": "", "signature": ""}
        return {"type": "text", "text": ""}

    def _full(self, block: Block) -> dict[str, Any]:
        empty = self._empty(block)
        if block.kind is Kind.CALL:
            return {**empty, "input": _object(block.text)}
        return {**empty, ("thinking" if block.kind is Kind.THOUGHT else "text"): block.text}

    def _delta(self, block: Block, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": block.index, "delta": delta}


def _delta(kind: Kind, piece: str) -> dict[str, Any]:
    if kind is Kind.CALL:
        return {"type": "input_json_delta", "partial_json": piece}
    return (
        {"type": "thinking_delta", "thinking": piece} if kind is Kind.THOUGHT else {"type": "text_delta", "text": piece}
    )


def _object(text: str) -> dict[str, Any]:
    """A call's arguments; those of a call that was cut off are no JSON, and none are told."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


ROUTES = [
    Route("/v1/messages", create, methods=["POST"]),
    Route("/v1/messages/count_tokens", count, methods=["POST"]),
]
