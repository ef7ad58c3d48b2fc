"""What llama-server answered, recorded by `tests/serve/record.py`, as chunks and as events.

events("chat_thought")  ->  [Begin(...), Prefill(...), Thought("P"), ...]
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from edgellm.run.events import Event
from edgellm.serve.answer.reader import Reader
from edgellm.serve.answer.whole import Whole
from edgellm.serve.workers.upstream import Chunk, _chunk

RECORDED = Path(__file__).parent / "recorded"
NAMES = tuple(sorted(path.stem for path in RECORDED.glob("*.sse")))
Item = TypeVar("Item")


def stream(name: str) -> bytes:
    """The body as it came over the socket."""
    return (RECORDED / f"{name}.sse").read_bytes()


def chunks(name: str) -> list[Chunk]:
    """Its events, as `Upstream` hands them on."""
    return [chunk for block in stream(name).split(b"\n\n") if (chunk := _chunk(block))]


def read_all(chunks: Iterable[Chunk]) -> list[Event]:
    """What a reader makes of chunks."""
    reader = Reader()
    found = [event for chunk in chunks for event in reader.read(chunk.data, chunk.raw)]
    return [*found, *reader.finish()]


def events(name: str) -> list[Event]:
    """A recording as events."""
    return read_all(chunks(name))


def refusal_of(name: str) -> tuple[int, Any]:
    """Status and body of a request that llama-server refused."""
    found = json.loads((RECORDED / "refusals.json").read_text())[name]
    return found["status"], found["body"]


def folded(events: Iterable[Event], n: int = 1) -> Whole:
    """The whole answer."""
    whole = Whole(n)
    for event in events:
        whole.add(event)
    whole.trim()
    return whole


async def sent(items: Sequence[Item]) -> AsyncIterator[Item]:
    """The same one after the other, as a stream."""
    for item in items:
        yield item
