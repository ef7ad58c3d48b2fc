"""OpenAI's Responses API: POST /v1/responses, and the tokens that a request would have.

routes = responses.ROUTES

Nothing is kept: a conversation goes on by sending what was said before.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgellm.serve.answers import Ending
from edgellm.serve.blocks import Block, Blocks, Change, Kind, Step
from edgellm.serve.catalog import Kind as Does
from edgellm.serve.logprobs import as_chat
from edgellm.serve.openapi import takes
from edgellm.serve.requests import parsed
from edgellm.serve.responding import Output, Working
from edgellm.serve.responses_requests import ResponseRequest
from edgellm.serve.service import service_of
from edgellm.serve.telling import count_tokens, tell

_PREFIX = {Kind.THOUGHT: "rs", Kind.TEXT: "msg", Kind.CALL: "fc"}
_DELTA = {
    Kind.THOUGHT: "response.reasoning_text",
    Kind.TEXT: "response.output_text",
    Kind.CALL: "response.function_call_arguments",
}


@takes(ResponseRequest, streams=True)
async def create(request: Request) -> Response:
    """POST /v1/responses: an answer to a text or to the items of a conversation."""
    service, asked = service_of(request), parsed(ResponseRequest, await request.body())
    model = service.model(asked.model, Does.CHAT)
    body = asked.for_worker()  # before a model is loaded for it

    async def work(out: Output) -> None:
        async with service.pool.lease(model.name, Does.CHAT) as worker:
            await tell(service, worker, asked, body, ResponseTeller(asked, model.name), out)

    return Working(work)


@takes(ResponseRequest)
async def count(request: Request) -> Response:
    """POST /v1/responses/input_tokens: how many tokens a request would have."""
    service, asked = service_of(request), parsed(ResponseRequest, await request.body())
    model = service.model(asked.model, Does.CHAT)
    body = asked.for_worker()  # before a model is loaded for it

    async def work(out: Output) -> None:
        async with service.pool.lease(model.name, Does.CHAT) as worker:
            n_tokens = await count_tokens(worker, body)
            await out.json({"object": "response.input_tokens", "input_tokens": n_tokens})

    return Working(work)


class ResponseTeller:
    """The words of this API; every event has the next `sequence_number`."""

    def __init__(self, asked: ResponseRequest, model: str) -> None:
        self.blocks = Blocks()
        self._asked = asked
        self._model = model
        self._name = secrets.token_hex(16)
        self._created = int(time.time())
        self._numbers = itertools.count()

    def begin(self) -> Iterator[dict[str, Any]]:
        """The answer is under way."""
        response = self._response("in_progress", [])
        yield self._event("response.created", response=response)
        yield self._event("response.in_progress", response=response)

    def change(self, change: Change) -> Iterator[dict[str, Any]]:
        """A block begins, grows or ends."""
        block = change.block
        if change.step is Step.OPEN:
            yield self._item_event("response.output_item.added", block, "in_progress")
            if block.kind is not Kind.CALL:
                yield self._event("response.content_part.added", part=self._part(block), **self._where(block))
        elif change.step is Step.MORE:
            more = {"logprobs": self._logprobs(change.logprobs)} if block.kind is Kind.TEXT else {}
            yield self._event(f"{_DELTA[block.kind]}.delta", delta=change.piece, **more, **self._where(block))
        else:
            yield self._done(block)
            if block.kind is not Kind.CALL:
                yield self._event("response.content_part.done", part=self._part(block), **self._where(block))
            yield self._item_event("response.output_item.done", block, self._status(block))

    def end(self, ending: Ending) -> Iterator[dict[str, Any]]:
        """The answer is over; its last event has all of it."""
        response = self.whole(ending)
        yield self._event(f"response.{response['status']}", response=response)

    def whole(self, ending: Ending) -> dict[str, Any]:
        """The answer."""
        blocks = self.blocks
        items = [self._item(block, self._status(block)) for block in blocks.list]
        response = self._response("incomplete" if self._is_cut else "completed", items)
        if self._is_cut:
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        response |= {"completed_at": None if self._is_cut else int(time.time()), "usage": self._usage()}
        response["timings"] = blocks.timings
        return response | ({"edgellm": ending.as_field()} if ending.reason else {})

    @property
    def _is_cut(self) -> bool:
        return self.blocks.finish_reason == "length"

    def _status(self, block: Block) -> str:
        return "incomplete" if self._is_cut and block is self.blocks.list[-1] else "completed"

    def _event(self, kind: str, **more: Any) -> dict[str, Any]:
        return {"type": kind, "sequence_number": next(self._numbers), **more}

    def _where(self, block: Block) -> dict[str, Any]:
        inside = {} if block.kind is Kind.CALL else {"content_index": 0}
        return {"item_id": self._item_id(block), "output_index": block.index, **inside}

    def _item_event(self, kind: str, block: Block, status: str) -> dict[str, Any]:
        item = self._item(block, status)
        if status == "in_progress" and block.kind is not Kind.CALL:
            item["content"] = []  # its part is added by an event of its own
        return self._event(kind, output_index=block.index, item=item)

    def _done(self, block: Block) -> dict[str, Any]:
        if block.kind is Kind.CALL:
            told: dict[str, Any] = {"name": block.name, "arguments": block.text}
        else:
            told = {"text": block.text}
        if block.kind is Kind.TEXT:
            told["logprobs"] = self._logprobs(block.logprobs)
        return self._event(f"{_DELTA[block.kind]}.done", **told, **self._where(block))

    def _item_id(self, block: Block) -> str:
        return f"{_PREFIX[block.kind]}_{self._name}{block.index}"

    def _item(self, block: Block, status: str) -> dict[str, Any]:
        item: dict[str, Any] = {"id": self._item_id(block), "status": status}
        if block.kind is Kind.CALL:
            call = {"call_id": block.call_id, "name": block.name, "arguments": block.text}
            return {**item, "type": "function_call", **call}
        if block.kind is Kind.THOUGHT:
            return {**item, "type": "reasoning", "summary": [], "content": [self._part(block)]}
        return {**item, "type": "message", "role": "assistant", "content": [self._part(block)]}

    def _part(self, block: Block) -> dict[str, Any]:
        if block.kind is Kind.THOUGHT:
            return {"type": "reasoning_text", "text": block.text}
        logprobs = self._logprobs(block.logprobs)
        return {"type": "output_text", "text": block.text, "annotations": [], "logprobs": logprobs}

    def _logprobs(self, entries: Any) -> list[dict[str, Any]]:
        return as_chat(entries, self._asked.top_logprobs or 0)

    def _usage(self) -> dict[str, Any]:
        """`reasoning_tokens` counts the pieces that the thoughts came in: nearly always one a token."""
        blocks = self.blocks
        thoughts = sum(len(block.pieces) for block in blocks.list if block.kind is Kind.THOUGHT)
        return {
            "input_tokens": blocks.n_prompt,
            "input_tokens_details": {"cached_tokens": blocks.n_cached, "cache_write_tokens": 0},
            "output_tokens": blocks.n_answer,
            "output_tokens_details": {"reasoning_tokens": min(thoughts, blocks.n_answer)},
            "total_tokens": blocks.n_prompt + blocks.n_answer,
        }

    def _response(self, status: str, items: list[dict[str, Any]]) -> dict[str, Any]:
        """A response; what was asked is repeated in it, as clients expect."""
        asked = self._asked
        repeated = asked.given_only("instructions", "max_output_tokens", "temperature", "top_p", "user", "metadata")
        tools = [{"parameters": None, "strict": None, **tool.given()} for tool in asked.tools or ()]
        return {
            "id": f"resp_{self._name}", "object": "response", "created_at": self._created, "status": status,
            "background": False, "error": None, "incomplete_details": None, "instructions": None,
            "max_output_tokens": None, "metadata": {}, "model": self._model, "output": items,
            "parallel_tool_calls": asked.parallel_tool_calls is not False, "previous_response_id": None,
            "reasoning": {"effort": asked.reasoning.effort if asked.reasoning else None, "summary": None},
            "service_tier": "default", "store": False, "temperature": None, "text": self._text(),
            "tool_choice": asked.given_only("tool_choice").get("tool_choice", "auto"), "tools": tools, "top_p": None,
            "truncation": "auto" if asked.wants_truncation else "disabled", "usage": None, "user": None, **repeated,
        }  # fmt: skip

    def _text(self) -> dict[str, Any]:
        text = self._asked.text
        return {"format": text.format.given() if text and text.format else {"type": "text"}}


ROUTES = [
    Route("/v1/responses", create, methods=["POST"]),
    Route("/v1/responses/input_tokens", count, methods=["POST"]),
]
