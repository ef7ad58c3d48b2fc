"""How OpenAI's Responses API writes an answer: items and their parts, each event with the next `sequence_number`.

words = ResponseWords(request, "smollm2")
words.write(Text("Paris"))  ->  b"event: response.created\\ndata: {...}"
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from edgellm.run.events import LogprobEntry
from edgellm.serve.answer.ran import cited as pages_of
from edgellm.serve.answer.ran import described
from edgellm.serve.answer.whole import Block, BlockKind, Change, Step, Whole
from edgellm.serve.answer.words import BlockWords, cut_field
from edgellm.serve.http.problems import Problem
from edgellm.serve.protocols.openai.words import error
from edgellm.serve.protocols.responses.requests import ResponseRequest
from edgellm.serve.protocols.responses.runs import RunWords
from edgellm.serve.protocols.responses.tools import FileSearchTool, FunctionTool, McpTool
from edgellm.serve.tools.served import AskedTools
from edgellm.wire.body import Body
from edgellm.wire.encoding import encoded
from edgellm.wire.logprobs import as_chat
from edgellm.wire.tool_choice import ProviderTool

_PREFIX = {BlockKind.THOUGHT: "rs", BlockKind.TEXT: "msg", BlockKind.CALL: "fc"}
_DELTA = {
    BlockKind.THOUGHT: "response.reasoning_text",
    BlockKind.TEXT: "response.output_text",
    BlockKind.CALL: "response.function_call_arguments",
}


def error_event(problem: Problem) -> bytes:
    """The last event of a failed stream: this API's `error`, with the object that OpenAI's SDKs raise."""
    event = {"type": "error", "code": problem.code, "message": problem.message, "param": problem.field}
    return b"event: error\ndata: " + encoded({**event, **error(problem)}) + b"\n\n"


class ResponseWords(BlockWords):
    """One response; a client may send it back in its next request."""

    def __init__(self, asked: ResponseRequest, model: str, tools: AskedTools | None = None) -> None:
        """`tools` are those of the server that the model may call."""
        super().__init__()
        self._asked = asked
        self._runs = RunWords(asked, tools)
        self._model = model
        self._name = secrets.token_hex(16)
        self._created = int(time.time())
        self._runs.suffix = self._name
        self._numbers = itertools.count()

    def begin(self) -> Iterator[dict[str, Any]]:
        """The response is created, and in progress; documents have been searched."""
        response = self._response("in_progress", [])
        yield self._event("response.created", response=response)
        yield self._event("response.in_progress", response=response)
        if self.answer.searched is not None:
            where = {"output_index": 0}
            begun = self._search("in_progress") | {"queries": [], "results": None}
            yield self._event("response.output_item.added", item=begun, **where)
            for status in ("in_progress", "searching", "completed"):
                yield self._event(f"response.file_search_call.{status}", item_id=begun["id"], **where)
            yield self._event("response.output_item.done", item=self._search("completed"), **where)
        for number, item in enumerate(self._runs.lists(), self.answer.searched is not None):
            for kind, more in self._runs.list_events(item):
                yield self._event(kind, output_index=number, **more)

    def change(self, change: Change) -> Iterator[dict[str, Any]]:
        """A block begins, grows or ends."""
        block = change.block
        if block.kind is BlockKind.RUN:
            for kind, more in self._runs.events(change):
                yield self._event(kind, output_index=self._output_index(block), **more)
        elif change.step is Step.OPEN:
            yield self._item_event("response.output_item.added", block, "in_progress")
            if block.kind is not BlockKind.CALL:
                yield self._event("response.content_part.added", part=self._part(block), **self._where(block))
        elif change.step is Step.MORE:
            more = {"logprobs": self._logprobs(change.entries)} if block.kind is BlockKind.TEXT else {}
            yield self._event(f"{_DELTA[block.kind]}.delta", delta=change.piece, **more, **self._where(block))
        else:
            if block.kind is BlockKind.TEXT:
                for number, each in enumerate(self._annotations(block)):
                    where = self._where(block)
                    yield self._event(
                        "response.output_text.annotation.added", annotation=each, annotation_index=number, **where
                    )
            yield self._done(block)
            if block.kind is not BlockKind.CALL:
                yield self._event("response.content_part.done", part=self._part(block), **self._where(block))
            yield self._item_event("response.output_item.done", block, self._status(block))

    def end(self) -> Iterator[dict[str, Any]]:
        """The answer is over; its last event has all of it."""
        response = self.whole(self.answer)
        yield self._event(f"response.{response['status']}", response=response)

    def whole(self, answer: Whole) -> dict[str, Any]:
        """The response with all its items."""
        self.answer = answer
        items = [self._search("completed")] if answer.searched is not None else []
        items += self._runs.lists()
        items += [self._item(block, self._status(block)) for block in answer.choice.blocks]
        response = self._response("incomplete" if self._is_cut else "completed", items)
        if self._is_cut:
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        response |= {"completed_at": None if self._is_cut else int(time.time()), "usage": self._usage()}
        response["timings"] = dict(answer.timings)
        ran = [described(block.returned) for block in answer.choice.runs if block.returned]
        about = (answer.cut, answer.warnings, self._left_out(), answer.documents, answer.cache, ran)
        return response | cut_field(*about)

    @property
    def _is_cut(self) -> bool:
        end = self.answer.choice.end
        return end is not None and end.reason == "length"

    def _status(self, block: Block) -> str:
        return "incomplete" if self._is_cut and block is self.answer.choice.blocks[-1] else "completed"

    def _event(self, kind: str, **more: Any) -> dict[str, Any]:
        return {"type": kind, "sequence_number": next(self._numbers), **more}

    def _where(self, block: Block) -> dict[str, Any]:
        inside = {} if block.kind is BlockKind.CALL else {"content_index": 0}
        return {"item_id": self._item_id(block), "output_index": self._output_index(block), **inside}

    def _output_index(self, block: Block) -> int:
        """A search in documents and the lists of tools come first."""
        return block.index + (self.answer.searched is not None) + len(self._runs.lists())

    def _search(self, status: str) -> dict[str, Any]:
        """The search in documents, as an item of its own."""
        found = self.answer.searched
        item = {"id": f"fs_{self._name}", "type": "file_search_call", "status": status}
        if found is None:
            return item
        results = [dict(each) for each in found.results] if self._asked.wants_results else None
        return {**item, "queries": list(found.queries), "results": results}

    def _left_out(self) -> list[dict[str, Any]]:
        """The tools that were not used, a search too where the server has no documents."""
        tools = self._asked.tools or ()
        searches = [] if self.answer.searched else [tool for tool in tools if isinstance(tool, FileSearchTool)]
        others = [tool for tool in tools if isinstance(tool, ProviderTool) or self._runs.is_left_out(tool)]
        return [_named(tool) for tool in others] + [{"type": tool.type} for tool in searches]

    def _annotations(self, block: Block) -> list[dict[str, Any]]:
        """What a text rests on: documents, each with its quotation, which OpenAI's clients ignore; and pages."""
        is_last = block is next((each for each in reversed(self.answer.choice.blocks) if each.kind is block.kind), None)
        cited = self.answer.documents.get("citations", ()) if is_last else ()
        pages = [
            {"type": "url_citation", "url": each.place, "title": each.title, "start_index": begin, "end_index": end}
            for each, begin, end in (pages_of(block.text, self.answer.choice.runs) if is_last else ())
        ]
        return [{"type": "file_citation", **each} for each in cited] + pages

    def _item_event(self, kind: str, block: Block, status: str) -> dict[str, Any]:
        item = self._item(block, status)
        if status == "in_progress" and block.kind is not BlockKind.CALL:
            item["content"] = []  # its part is added by an event of its own
        return self._event(kind, output_index=self._output_index(block), item=item)

    def _done(self, block: Block) -> dict[str, Any]:
        if block.kind is BlockKind.CALL:
            content: dict[str, Any] = {"name": block.name, "arguments": block.text}
        else:
            content = {"text": block.text}
        if block.kind is BlockKind.TEXT:
            content["logprobs"] = self._logprobs(block.logprobs)
        return self._event(f"{_DELTA[block.kind]}.done", **content, **self._where(block))

    def _item_id(self, block: Block) -> str:
        return f"{_PREFIX[block.kind]}_{self._name}{block.index}"

    def _item(self, block: Block, status: str) -> dict[str, Any]:
        if block.kind is BlockKind.RUN:
            return self._runs.item(block)
        item: dict[str, Any] = {"id": self._item_id(block), "status": status}
        if block.kind is BlockKind.CALL:
            call = {"call_id": block.call_id, "name": block.name, "arguments": block.text}
            return {**item, "type": "function_call", **call}
        if block.kind is BlockKind.THOUGHT:
            return {**item, "type": "reasoning", "summary": [], "content": [self._part(block)]}
        return {**item, "type": "message", "role": "assistant", "content": [self._part(block)]}

    def _part(self, block: Block) -> dict[str, Any]:
        if block.kind is BlockKind.THOUGHT:
            return {"type": "reasoning_text", "text": block.text}
        logprobs = self._logprobs(block.logprobs)
        annotations = self._annotations(block)
        return {"type": "output_text", "text": block.text, "annotations": annotations, "logprobs": logprobs}

    def _logprobs(self, entries: Sequence[LogprobEntry]) -> list[dict[str, Any]]:
        return as_chat(entries, self._asked.top_logprobs or 0)

    def _usage(self) -> dict[str, Any]:
        """`reasoning_tokens` counts the pieces of the thoughts, nearly always one for each token."""
        tokens, blocks = self.answer.tokens, self.answer.choice.blocks
        thoughts = sum(len(block.pieces) for block in blocks if block.kind is BlockKind.THOUGHT)
        return {
            "input_tokens": tokens.prompt,
            "input_tokens_details": {"cached_tokens": tokens.cached, "cache_write_tokens": 0},
            "output_tokens": tokens.completion,
            "output_tokens_details": {"reasoning_tokens": min(thoughts, tokens.completion)},
            "total_tokens": tokens.prompt + tokens.completion,
        }

    def _response(self, status: str, items: list[dict[str, Any]]) -> dict[str, Any]:
        """A response; it repeats the request, as clients expect."""
        asked = self._asked
        repeated = asked.given_only("instructions", "max_output_tokens", "temperature", "top_p", "user", "metadata")
        tools = [
            {"parameters": None, "strict": None, **tool.given()} if isinstance(tool, FunctionTool) else tool.given()
            for tool in asked.tools or ()
            if isinstance(tool, FunctionTool | FileSearchTool)
        ] + self._runs.repeated()
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


def _named(tool: Body) -> dict[str, Any]:
    """A tool that is left out, by its type and name."""
    if isinstance(tool, McpTool):
        return {"type": tool.type, "name": tool.server_label}
    return tool.given_only("type", "name")
