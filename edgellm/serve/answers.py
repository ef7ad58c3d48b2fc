"""An answer as the worker streams it, with what edgellm adds: the loop guard, limits, and an end that can be told.

async with answer(worker, Protocol.CHAT, body, guard=True, before_wait=out.flush) as events:
    async for event in events: ...
events.loop, events.stopped

Every protocol of the worker is guarded in the same way: the text in its events is fed to the guard, and when that finds
a loop the worker is told to end the answer, which it does in good order, with usage and timings.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edgellm.errors import EngineError
from edgellm.run.loops import Loop, LoopGuard
from edgellm.serve.upstream import BeforeWait, Event, Reply, UpstreamRefused
from edgellm.serve.worker import Worker


class Protocol(str, Enum):
    """A way to ask the worker for text; the value is its path there.

    Its own forms of Responses and Messages are not used: they lose what chat has (sampling, schemas, a chosen tool).
    """

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"


def _chat_text(data: Any) -> str:
    choices = data.get("choices")
    if not choices:
        return ""
    delta = choices[0].get("delta")
    if not delta:
        return ""
    return delta.get("content") or delta.get("reasoning_content") or ""


def _completion_text(data: Any) -> str:
    choices = data.get("choices")
    return choices[0].get("text") or "" if choices else ""


_TEXT: dict[Protocol, Callable[[Any], str]] = {
    Protocol.CHAT: _chat_text,
    Protocol.COMPLETIONS: _completion_text,
}


@dataclass(slots=True)
class Ending:
    """How an answer ended that we had ended: `reason` is `repetition` or `time`, empty if it ended by itself.

    `kept` counts the pieces of text up to where the loop began. `has_call` says that we ended it after its first call
    of a tool, as was asked. `name` is what the worker calls the answer.
    """

    reason: str = ""
    loop: Loop | None = None
    kept: int = 0
    has_call: bool = False
    n_pieces: int = 0
    name: str = ""
    on_first_text: Callable[[], None] = lambda: None

    def as_field(self) -> dict[str, Any]:
        """The field of our own that tells it to those who know us."""
        told: dict[str, Any] = {"finish_reason": self.reason}
        if self.loop is not None:
            told |= {"repeated": self.loop.shown, "repetitions": self.loop.repetitions, "kept_pieces": self.kept}
        return told


@dataclass(slots=True)
class Answer:
    """The events of an answer."""

    ending: Ending
    _events: AsyncIterator[Event] = field(repr=False)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._events


@contextlib.asynccontextmanager
async def answer(
    worker: Worker,
    protocol: Protocol,
    body: dict[str, Any],
    *,
    guard: bool,
    before_wait: BeforeWait,
    max_seconds: float | None = None,
) -> AsyncIterator[Answer]:
    """Stream an answer; leaving the block ends its computation.

    Text that comes after a loop was found is left out. `max_seconds` count from here. `before_wait` is awaited whenever
    there is no more to read for now.

    Raises:
        UpstreamRefused: the worker refuses the request.
        EngineError: the worker ended.
    """
    ending = Ending(name=f"chatcmpl-{secrets.token_urlsafe(18)}")
    request = {**body, "stream": True, "completion_id": ending.name}
    async with contextlib.AsyncExitStack() as stack:
        events = await stack.enter_async_context(worker.upstream.stream(protocol.value, request, before_wait))
        if max_seconds is not None:
            timer = asyncio.create_task(_end_later(worker, ending, max_seconds))
            stack.callback(timer.cancel)
        guarded = LoopGuard() if guard else None
        alone = body.get("parallel_tool_calls") is False and body.get("n", 1) == 1
        yield Answer(ending, _watched(events, worker, protocol, guarded, ending, alone=alone))


async def _watched(
    events: AsyncIterator[Event],
    worker: Worker,
    protocol: Protocol,
    guard: LoopGuard | None,
    ending: Ending,
    *,
    alone: bool,
) -> AsyncIterator[Event]:
    text_of = _TEXT[protocol]
    async for event in events:
        data = event.data
        if "error" in data and "choices" not in data:
            raise _failure(data)
        if alone and (data := _first_call_only(data, ending)) is None:
            await _end(worker, ending.name)
            continue
        text = text_of(data)
        if text and ending.loop is not None:
            continue
        if text:
            if ending.n_pieces == 0:
                ending.on_first_text()
            ending.n_pieces += 1
            # The pieces stand for the tokens, which the worker does not tell: the same text is the same symbol.
            if guard is not None and (loop := guard.feed(hash(text), text)):
                ending.reason, ending.loop, ending.kept = "repetition", loop, loop.kept_tokens
                await _end(worker, ending.name)
        yield event


def _failure(data: dict[str, Any]) -> Exception:
    """What an event with an error means: one of several prompts was refused, or the worker failed."""
    code = data["error"].get("code") if isinstance(data["error"], dict) else None
    if code == 400:
        return UpstreamRefused(Reply(code, data))
    return EngineError("the worker failed while it answered", why=str(data["error"])[:200])


def _first_call_only(data: dict[str, Any], ending: Ending) -> dict[str, Any] | None:
    """The event, or nothing for a second call of a tool where one was allowed: the worker's grammar takes more."""
    for choice in data.get("choices") or ():
        if any(call.get("index", 0) > 0 for call in (choice.get("delta") or {}).get("tool_calls") or ()):
            ending.has_call = True
            return None
        if ending.has_call and choice.get("finish_reason"):
            choice["finish_reason"] = "tool_calls"
    return data


async def _end_later(worker: Worker, ending: Ending, seconds: float) -> None:
    await asyncio.sleep(seconds)
    if not ending.reason:
        ending.reason = "time"
        await _end(worker, ending.name)


async def _end(worker: Worker, name: str) -> None:
    with contextlib.suppress(EngineError):  # the stream tells that it has ended
        await worker.end_answer(name)
