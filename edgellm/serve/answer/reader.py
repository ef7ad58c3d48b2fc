"""llama-server's chunks as events: the only place that knows what they look like.

reader = Reader()
for event in reader.read(chunk.data, chunk.raw): ...
for event in reader.finish(): ...
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgellm.engine.finite import not_finite
from edgellm.machine.child import ChildFailed
from edgellm.run.events import Begin, Call, End, Event, Prefill, Text, Thought, TokenCounts
from edgellm.wire.encoding import encoded
from edgellm.wire.openai_answers import CHAT_COMPLETION

if TYPE_CHECKING:
    from edgellm.serve.workers.upstream import Chunk

ABOUT = ("id", "created", "model", "system_fingerprint")
# The fields of a choice and of its delta that say more than that an answer begins.
_SAID = ("text", "logprobs", "content", "reasoning_content", "reasoning", "tool_calls", "finish_reason")


class Reader:
    """Reads one stream, of a chat or of a completion. An answer's counts may come in a chunk after its last one."""

    def __init__(self) -> None:
        self._has_begun = False
        self._end: End | None = None

    def read(self, data: Mapping[str, Any], raw: bytes) -> Iterator[Event]:
        """The events of a chunk.

        Raises:
            UpstreamRefused: llama-server refuses one of several prompts only now.
            ChildFailed: it failed.
        """
        choices = data.get("choices")
        if choices is None and "error" in data:
            raise _failure(data)
        if progress := data.get("prompt_progress"):
            yield Prefill(progress.get("processed", 0), progress["total"], progress["cache"])
        if not self._has_begun:
            self._has_begun = True
            is_bare = not any(_says_something(choice) for choice in choices or ())
            yield Begin({name: data.get(name) for name in ABOUT}, raw if is_bare else b"")
            if is_bare and not data.get("usage"):
                return
            raw = b"" if is_bare else raw
        if not choices:  # the counts of the answer that has just ended
            yield from self._close(data)
            return
        for choice in choices:
            yield from self._read_choice(choice, data, raw)
            raw = b""

    def _read_choice(self, choice: Mapping[str, Any], data: Mapping[str, Any], raw: bytes) -> Iterator[Event]:
        index = choice.get("index", 0)
        delta = choice.get("delta") or {}
        entries = tuple((choice.get("logprobs") or {}).get("content") or ())
        if any(each.get("logprob") is None for each in entries):  # what llama-server makes of NaN
            raise not_finite(str(data.get("model") or "the model"))
        events: list[Event] = []
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            events.append(Thought(thought, index, entries, raw))
            entries, raw = (), b""
        if text := delta.get("content") or choice.get("text"):
            events.append(Text(text, index=index, logprobs=entries, raw=raw))
            entries, raw = (), b""
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            name, arguments = function.get("name") or "", function.get("arguments") or ""
            events.append(Call(call.get("index", 0), call.get("id") or "", name, arguments, index, raw))
            raw = b""
        yield from events
        if reason := choice.get("finish_reason"):
            yield from self.finish()
            self._end = End(reason, index, stop_text=(data.get("__verbose") or {}).get("stopping_word") or "")
            if "usage" in data:
                yield from self._close(data)
        elif not events:  # a token whose text llama-server holds back, because it may begin a stop sequence
            yield Text("", index=index, logprobs=entries, raw=raw)

    def _close(self, data: Mapping[str, Any]) -> Iterator[Event]:
        if self._end is None:
            return
        tokens, usage = None, data.get("usage")
        if usage:
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
            tokens = TokenCounts(usage["prompt_tokens"], usage["completion_tokens"], cached)
        end, self._end = self._end, None
        stop_text = (data.get("__verbose") or {}).get("stopping_word") or end.stop_text
        yield replace(end, tokens=tokens, timings=data.get("timings") or {}, stop_text=stop_text)

    def finish(self) -> Iterator[Event]:
        """What is left when the stream ends, or when another answer ends: an end without counts."""
        return self._close({})


async def read(chunks: AsyncIterator[Chunk]) -> AsyncIterator[Event]:
    """The events of a stream; raises as `Reader.read` does."""
    reader = Reader()
    async for chunk in chunks:
        for event in reader.read(chunk.data, chunk.raw):
            yield event
    for event in reader.finish():
        yield event


def begun(model: str) -> Begin:
    """The beginning of an answer that llama-server has not begun."""
    return Begin({"id": f"chatcmpl-{time.time_ns():x}", "created": int(time.time()), "model": model})


def spoken(text: str, about: Mapping[str, Any]) -> Text:
    """A piece of text that is not the model's, as if llama-server had said it in a chat."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    chunk = {"choices": [choice], **about, "object": f"{CHAT_COMPLETION}.chunk"}
    return Text(text, raw=b"data: " + encoded(chunk))


def calling_piece(call: Call, about: Mapping[str, Any]) -> Call:
    """A piece of a call, as if llama-server had recognised it in a chat."""
    function = {**({"name": call.name} if call.name else {}), "arguments": call.arguments}
    begun = {"id": call.id, "type": "function"} if call.id else {}
    delta = {"tool_calls": [{"index": call.position, **begun, "function": function}]}
    choice = {"index": call.index, "delta": delta, "finish_reason": None}
    chunk = {"choices": [choice], **about, "object": f"{CHAT_COMPLETION}.chunk"}
    return replace(call, raw=b"data: " + encoded(chunk))


def _says_something(choice: Mapping[str, Any]) -> bool:
    fields = {**choice, **(choice.get("delta") or {})}
    return any(fields.get(name) for name in _SAID)


def _failure(data: Mapping[str, Any]) -> Exception:
    error = data["error"]
    if isinstance(error, dict) and error.get("code") == 400:
        from edgellm.serve.workers.upstream import refusal

        return refusal(400, data)
    return ChildFailed("the worker failed while it answered", why=str(error)[:200])
