"""Many clients at once, as they are: each streams, and comes again when it is told to.

outcome = asyncio.run(load(server.url, n_clients=64, seconds=120))
"""

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp


@dataclass
class Outcome:
    """Statuses counted; streams that ended with a finish reason, and what became of the others."""

    statuses: Counter[int] = field(default_factory=Counter)
    complete: int = 0
    told: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


async def load(url: str, *, n_clients: int, seconds: float, model: str = "smollm2") -> Outcome:
    """Let clients ask for so long; every stream is read to its end."""
    outcome = Outcome()
    end = time.monotonic() + seconds
    timeout = aiohttp.ClientTimeout(total=None, sock_read=120)
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        await asyncio.gather(*(_client(session, model, random.Random(i), end, outcome) for i in range(n_clients)))
    return outcome


async def _client(
    session: aiohttp.ClientSession, model: str, draw: random.Random, end: float, outcome: Outcome
) -> None:
    while time.monotonic() < end:
        question = f"Tell me about the number {draw.randrange(10**6)}."
        body = {
            "model": model, "messages": [{"role": "user", "content": question}], "stream": True,
            "max_tokens": draw.randrange(1, 24), "stream_options": {"include_usage": True},
        }  # fmt: skip
        try:
            await _ask(session, body, outcome)
        except aiohttp.ClientError as error:
            outcome.wrong.append(repr(error))
            await asyncio.sleep(0.1)


async def _ask(session: aiohttp.ClientSession, body: dict[str, object], outcome: Outcome) -> None:
    async with session.post("/v1/chat/completions", json=body) as reply:
        outcome.statuses[reply.status] += 1
        if reply.status != 200:
            if reply.status not in (429, 503) or "Retry-After" not in reply.headers:
                outcome.wrong.append(f"{reply.status}: {await reply.text()}")
            await asyncio.sleep(float(reply.headers.get("Retry-After", 1)) * 0.5)
            return
        lines = [line[6:].strip() async for line in reply.content if line.startswith(b"data: ")]
    events = [json.loads(line) for line in lines if line != b"[DONE]"]
    if any("error" in event for event in events):
        outcome.told.append(str(events[-1]))  # its worker was killed: the stream says so
    elif lines and lines[-1] == b"[DONE]" and any(_finished(event) for event in events):
        outcome.complete += 1
    else:
        outcome.wrong.append(f"a stream ended early: {lines[-1:]}")


def _finished(event: dict[str, object]) -> bool:
    choices = event.get("choices")
    return bool(isinstance(choices, list) and choices and choices[0]["finish_reason"])
