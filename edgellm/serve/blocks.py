"""A streamed chat answer as blocks, one after the other: thoughts, text, calls of tools.

blocks = Blocks()
async for event in answer:
    for change in blocks.feed(event.data): ...
changes = blocks.finish()

OpenAI's Responses and Anthropic's Messages both tell an answer in this form, with their own names for each change.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple


class Kind(str, Enum):
    """What is in a block; the value is the field of a chat's delta that it comes in."""

    THOUGHT = "reasoning_content"
    TEXT = "content"
    CALL = "tool_calls"


@dataclass(slots=True)
class Block:
    """A block and what has come of it; `name` and `call_id` are those of a call, whose pieces are its arguments."""

    index: int
    kind: Kind
    name: str = ""
    call_id: str = ""
    pieces: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)


class Step(Enum):
    """What happens to a block."""

    OPEN = 0
    MORE = 1
    CLOSE = 2


class Change(NamedTuple):
    """A step of a block; `piece` and its `logprobs` are what came with MORE."""

    step: Step
    block: Block
    piece: str = ""
    logprobs: tuple[dict[str, Any], ...] = ()


class Blocks:
    """The blocks so far, and what the worker tells about the whole answer."""

    def __init__(self) -> None:
        self.list: list[Block] = []
        self.n_prompt = 0
        self.n_cached = 0
        self.n_answer = 0
        self.timings: dict[str, Any] = {}
        self.finish_reason = ""
        self.stopped_by = ""
        self._open: Block | None = None
        self._call_index = -1

    def feed(self, data: dict[str, Any]) -> Iterator[Change]:
        """The next chunk of the answer."""
        self._note(data)
        for choice in data.get("choices") or ():
            delta = choice.get("delta") or {}
            logprobs = tuple((choice.get("logprobs") or {}).get("content") or ())
            for kind in (Kind.THOUGHT, Kind.TEXT):
                if piece := delta.get(kind.value):
                    yield from self._grow(kind, piece, logprobs)
            for call in delta.get(Kind.CALL.value) or ():
                yield from self._call(call)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def finish(self) -> Iterator[Change]:
        """No more comes."""
        if self._open is not None:
            yield Change(Step.CLOSE, self._open)
            self._open = None

    def trim(self, kept: int | None) -> None:
        """Keep only so many pieces of thoughts and text, for an answer that ended in a loop."""
        if kept is None:
            return
        for block in self.list:
            if block.kind is not Kind.CALL:
                block.pieces, kept = block.pieces[:kept], max(0, kept - len(block.pieces))
        self.list = [block for block in self.list if block.pieces or block.kind is Kind.CALL]

    def _note(self, data: dict[str, Any]) -> None:
        if progress := data.get("prompt_progress"):
            self.n_prompt, self.n_cached = progress["total"], progress["cache"]
        if usage := data.get("usage"):
            self.n_prompt, self.n_answer = usage["prompt_tokens"], usage["completion_tokens"]
            self.n_cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        self.timings = data.get("timings") or self.timings
        self.stopped_by = (data.get("__verbose") or {}).get("stopping_word") or self.stopped_by

    def _grow(self, kind: Kind, piece: str, logprobs: tuple[dict[str, Any], ...]) -> Iterator[Change]:
        block = self._open
        if block is None or block.kind is not kind:
            block = Block(len(self.list), kind)
            yield from self._begin(block)
        block.pieces.append(piece)
        block.logprobs.extend(logprobs)
        yield Change(Step.MORE, block, piece, logprobs)

    def _call(self, call: dict[str, Any]) -> Iterator[Change]:
        function, index, block = call.get("function") or {}, call.get("index", 0), self._open
        if block is None or block.kind is not Kind.CALL or index != self._call_index:
            self._call_index = index
            call_id = call.get("id") or f"call_{secrets.token_urlsafe(18)}"
            block = Block(len(self.list), Kind.CALL, function.get("name") or "", call_id)
            yield from self._begin(block)
        if arguments := function.get("arguments"):
            block.pieces.append(arguments)
            yield Change(Step.MORE, block, arguments)

    def _begin(self, block: Block) -> Iterator[Change]:
        yield from self.finish()
        self.list.append(block)
        self._open = block
        yield Change(Step.OPEN, block)
