"""Watches an answer while it streams, and ends it at a loop, after its time, or after the one tool call it may make.

guard = Guard(end, LoopGuard, one_call=False)
async for event in guard.watch(events): ...

llama-server ends an answer in good order, with its counts; the `End` event then says why, in `cut`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from edgellm.run.events import Call, Cut, End, Event, Text, Thought
from edgellm.run.loops import LoopGuard

AGAIN_SECONDS = 0.5


async def without_tokens(events: AsyncIterator[Event]) -> AsyncIterator[Event]:
    """The events of an answer of no tokens, which only reads its prompt; llama-server generates one even so."""
    async for event in events:
        match event:
            case Text() | Thought() | Call():
                continue
            case End():
                tokens = event.tokens and event.tokens._replace(completion=0)
                timings = {name: 0 if name.startswith("predicted_") else each for name, each in event.timings.items()}
                event = replace(event, reason="length", tokens=tokens, timings=timings)
        yield event


class Guard:
    """`end` asks the worker to end the answer. Text that comes after a loop was found is dropped.

    `loops` makes what watches one attempt at the answer; there may be a second one.
    """

    def __init__(
        self, end: Callable[[], Awaitable[None]], loops: Callable[[], LoopGuard] | None, *, one_call: bool
    ) -> None:
        self._end = end
        self._loops = loops
        self._one_call = one_call
        self._cut: Cut | None = None

    async def watch(self, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        """The events, without what must not be sent."""
        is_looping = has_call = False
        loops = self._loops() if self._loops is not None else None
        async for event in events:
            match event:
                case Text() | Thought() if event.text:
                    if is_looping:
                        continue
                    # llama-server does not say which token it is; equal pieces stand for equal tokens.
                    if loops is not None and (loop := loops.feed(hash(event.text), event.text)):
                        is_looping = True
                        self._cut = Cut("repetition", loop.shown, loop.repetitions, loop.kept_tokens)
                        await self._end()
                case Call() if self._one_call and event.position > 0:  # llama-server's grammar permits more
                    if not has_call:
                        has_call = True
                        await self._end()
                    continue
                case End():
                    event = replace(event, reason="tool_calls" if has_call else event.reason, cut=self._cut)
            yield event

    async def end_after(self, seconds: float) -> None:
        """End the answer when its time is up; runs until it is cancelled, when the answer is over."""
        await asyncio.sleep(seconds)
        if self._cut is not None:
            return
        self._cut = Cut("time")
        while True:  # llama-server does not know an answer that waits for a slot
            await self._end()
            await asyncio.sleep(AGAIN_SECONDS)
