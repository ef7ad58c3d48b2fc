"""How Anthropic's Messages API writes an answer: a message of content blocks.

words = MessageWords(request, "smollm2")
words.write(Text("Paris"))  ->  b"event: message_start\\ndata: {...}"
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any

from edgellm.run.events import Returned, ToolSource
from edgellm.serve.answer.ran import cited, described, is_address
from edgellm.serve.answer.whole import Block, BlockKind, Change, Step, Whole
from edgellm.serve.answer.words import BlockWords, cut_field
from edgellm.serve.http.problems import Problem
from edgellm.serve.protocols.anthropic.requests import AnthropicSearch, MessageRequest
from edgellm.serve.tools.served import AskedTools, ToolOrigin
from edgellm.serve.tools.wanted import WEB_SEARCH
from edgellm.tools.tool import OWN
from edgellm.wire.encoding import encoded
from edgellm.wire.tool_choice import left_out

_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def error(problem: Problem) -> dict[str, Any]:
    """`{"type": "error", "error": {"type", "message"}}`."""
    return {"type": "error", "error": {"type": problem.kind, "message": problem.message}}


def error_event(problem: Problem) -> bytes:
    """The last event of a stream that failed."""
    return b"event: error\ndata: " + encoded(error(problem)) + b"\n\n"


class MessageWords(BlockWords):
    """One message."""

    def __init__(self, asked: MessageRequest, model: str, tools: AskedTools | None = None) -> None:
        """`tools` are those of the server that the model may call."""
        super().__init__()
        self._tools = tools
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
            yield {"type": "content_block_start", "index": self._index(block), "content_block": self._empty(block)}
        elif change.step is Step.MORE:
            if not self._is_shown(block):
                return
            yield self._delta(block, _delta(block.kind, change.piece))
        else:
            if block.kind is BlockKind.THOUGHT:
                yield self._delta(block, {"type": "signature_delta", "signature": ""})
            for page in self._pages(block):
                yield self._delta(block, {"type": "citations_delta", "citation": page})
            yield {"type": "content_block_stop", "index": self._index(block)}
            if block.returned is not None:  # what it returned is a block of its own
                index = self._index(block) + 1
                yield {"type": "content_block_start", "index": index, "content_block": self._result(block.returned)}
                yield {"type": "content_block_stop", "index": index}

    def end(self) -> Iterator[dict[str, Any]]:
        """Why it ended, and all counts."""
        yield {"type": "message_delta", "delta": self._reason(), "usage": self._usage(), **self._besides()}
        yield {"type": "message_stop"}

    def whole(self, answer: Whole) -> dict[str, Any]:
        """The message with all its blocks."""
        self.answer = answer
        message = self._message(list(self._content(answer)), self._reason())
        return {**message, **self._besides()}

    def _content(self, answer: Whole) -> Iterator[dict[str, Any]]:
        for block in answer.choice.blocks:
            yield self._full(block)
            if block.returned is not None:
                yield self._result(block.returned)

    def _besides(self) -> dict[str, Any]:
        """What only some answers have, and edgellm's own fields."""
        answer = self.answer
        besides: dict[str, Any] = {"timings": dict(answer.timings)}
        if self._asked.context_management is not None:
            besides["context_management"] = {"applied_edits": []}
        ran = [described(block.returned) for block in answer.choice.runs if block.returned]
        cut = cut_field(answer.cut, answer.warnings, self._left_out(), answer.documents, answer.cache, ran)
        return {**besides, **cut}

    def _message(self, content: list[dict[str, Any]], reason: dict[str, Any] | None) -> dict[str, Any]:
        about = {"id": self._id, "type": "message", "role": "assistant", "model": self._model, "content": content}
        return {**about, **(reason or {"stop_reason": None, "stop_sequence": None}), "usage": self._usage()}

    def _reason(self) -> dict[str, Any]:
        end = self.answer.choice.end
        if end and end.reason == "stop" and end.stop_text in (self._asked.stop_sequences or ()):
            return {"stop_reason": "stop_sequence", "stop_sequence": end.stop_text}
        return {"stop_reason": _REASONS.get(end.reason if end else "", "end_turn"), "stop_sequence": None}

    def _usage(self) -> dict[str, Any]:
        """Anthropic's `input_tokens` leave out the cached ones."""
        tokens = self.answer.tokens
        return {
            "input_tokens": tokens.prompt - tokens.cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": tokens.cached,
            "output_tokens": tokens.completion,
        }

    def _left_out(self) -> list[dict[str, Any]]:
        missing = [
            {"type": tool.type, "name": tool.name}
            for tool in self._asked.tools or ()
            if isinstance(tool, AnthropicSearch) and (self._tools is None or self._tools.missing)
        ]
        servers = [] if self._tools else [{"type": "mcp", "name": each.name} for each in self._asked.mcp_servers or ()]
        return left_out(self._asked.tools) + missing + servers

    def _index(self, block: Block) -> int:
        """The place of a block; what a call of the server returned takes one of its own."""
        return block.index + sum(each.returned is not None for each in self.answer.choice.blocks[: block.index])

    def _use(self, name: str, call_id: str) -> dict[str, Any]:
        """The beginning of a call that the server made."""
        origin = self._tools.origin(name) if self._tools else ToolOrigin(OWN, name)
        if name == WEB_SEARCH:
            return {"type": "server_tool_use", "id": f"srvtoolu_{call_id}", "name": name, "input": {}}
        about = {"type": "mcp_tool_use", "id": f"mcptoolu_{call_id}", "name": origin.name, "input": {}}
        return {**about, "server_name": origin.label}

    def _result(self, returned: Returned) -> dict[str, Any]:
        """What such a call gave."""
        use = {"tool_use_id": self._use(returned.name, returned.id)["id"]}
        if returned.name != WEB_SEARCH:
            content = [{"type": "text", "text": returned.text, "citations": None}]
            return {"type": "mcp_tool_result", **use, "is_error": returned.error, "content": content}
        if returned.error:
            failed = {"type": "web_search_tool_result_error", "error_code": "unavailable"}
            return {"type": "web_search_tool_result", **use, "content": failed}
        pages = [each for each in returned.sources if is_address(each)] or [ToolSource("", "")]
        found = [
            {"type": "web_search_result", "url": each.place, "title": each.title, "page_age": None,
             "encrypted_content": "" if number else returned.text}
            for number, each in enumerate(pages)
        ]  # fmt: skip
        return {"type": "web_search_tool_result", **use, "content": found}

    def _pages(self, block: Block) -> list[dict[str, Any]]:
        """The pages that a text rests on."""
        if block.kind is not BlockKind.TEXT:
            return []
        return [
            {"type": "web_search_result_location", "url": each.place, "title": each.title, "encrypted_index": "",
             "cited_text": block.text[begin:end]}
            for each, begin, end in cited(block.text, self.answer.choice.blocks[: block.index])
        ]  # fmt: skip

    def _empty(self, block: Block) -> dict[str, Any]:
        if block.kind is BlockKind.RUN:
            return self._use(block.name, block.call_id)
        if block.kind is BlockKind.CALL:
            return {"type": "tool_use", "id": block.call_id, "name": block.name, "input": {}}
        if block.kind is BlockKind.THOUGHT:
            return {"type": "thinking", "thinking": "", "signature": ""}
        return {"type": "text", "text": ""}

    def _full(self, block: Block) -> dict[str, Any]:
        empty = self._empty(block)
        if not self._is_shown(block):
            return empty
        if block.kind in (BlockKind.CALL, BlockKind.RUN):
            return {**empty, "input": _object(block.text)}
        if pages := self._pages(block):
            return {**empty, "text": block.text, "citations": pages}
        return {**empty, ("thinking" if block.kind is BlockKind.THOUGHT else "text"): block.text}

    def _is_shown(self, block: Block) -> bool:
        return block.kind is not BlockKind.THOUGHT or self._asked.shows_thoughts

    def _delta(self, block: Block, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._index(block), "delta": delta}


def _delta(kind: BlockKind, piece: str) -> dict[str, Any]:
    if kind in (BlockKind.CALL, BlockKind.RUN):
        return {"type": "input_json_delta", "partial_json": piece}
    return (
        {"type": "thinking_delta", "thinking": piece}
        if kind is BlockKind.THOUGHT
        else {"type": "text_delta", "text": piece}
    )


def _object(text: str) -> dict[str, Any]:
    """The arguments of a call; empty for one that was cut off, whose text is no JSON."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
