"""An answer told as blocks, in the words of a protocol: streamed, or whole at the end.

await tell(service, worker, asked, body, ResponseTeller(asked, model), out)

The worker is always asked for a chat, so that every protocol has all that chat has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from edgellm.serve import answers
from edgellm.serve.answers import Ending
from edgellm.serve.blocks import Blocks, Change
from edgellm.serve.encoding import encoded
from edgellm.serve.requests import Streamed
from edgellm.serve.responding import Output
from edgellm.serve.service import Service
from edgellm.serve.worker import Worker

COUNT = "/v1/chat/completions/input_tokens"


class Teller(Protocol):
    """A protocol's words; each event has its name in `type`."""

    blocks: Blocks

    def begin(self) -> Iterable[dict[str, Any]]:
        """The first events, once the prompt is known."""

    def change(self, change: Change) -> Iterable[dict[str, Any]]:
        """What a change of a block is called."""

    def end(self, ending: Ending) -> Iterable[dict[str, Any]]:
        """The last events."""

    def whole(self, ending: Ending) -> dict[str, Any]:
        """The answer in one."""


async def tell(
    service: Service, worker: Worker, asked: Streamed, body: dict[str, Any], teller: Teller, out: Output
) -> None:
    """Ask the worker, and tell what it answers."""
    blocks = teller.blocks
    told = _Events(out) if asked.stream else None
    # A first event comes before the prompt is computed, and counts its tokens.
    body = {
        **_with_system(body, worker),
        "stream_options": {"include_usage": True},
        "return_progress": asked.stream,
    }
    async with service.answering(worker, answers.Protocol.CHAT, body, asked, out) as answer:
        async for event in answer:
            changes = list(blocks.feed(event.data))
            if told is None:
                continue
            if not out.media_type:
                out.open()
                told.write(teller.begin())
            for change in changes:
                told.write(teller.change(change))
        service.metrics.timings(worker.model.name, blocks.timings)
        if told is None:
            blocks.trim(answer.ending.kept if answer.ending.loop else None)
            await out.json(teller.whole(answer.ending))
            return
        for change in blocks.finish():
            told.write(teller.change(change))
        told.write(teller.end(answer.ending))
        await out.close()


async def count_tokens(worker: Worker, body: dict[str, Any]) -> int:
    """How many tokens the prompt of such a body has."""
    told = await worker.upstream.post(COUNT, _with_system(body, worker))
    return int(told["input_tokens"])


def _with_system(body: dict[str, Any], worker: Worker) -> dict[str, Any]:
    return {**body, "messages": worker.model.with_system(body["messages"])}


class _Events:
    """Server-sent events with names."""

    def __init__(self, out: Output) -> None:
        self._out = out

    def write(self, events: Iterable[dict[str, Any]]) -> None:
        for event in events:
            self._out.write(b"event: " + event["type"].encode() + b"\ndata: " + encoded(event) + b"\n\n")
