"""Conversations of many clients at once, each of several turns, for a front under load.

outcome = asyncio.run(converse(front.url, n_clients=64, seconds=120))
outcome.hits, outcome.later
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

N_TURNS = 4
# A later turn has hit the cache if so much of its prompt came from there.
HIT = 0.3
TOPICS = "the sea", "old ships", "bread", "the moon", "trains", "chess", "rivers", "glass"


@dataclass
class Outcome:
    """Statuses counted; streams that were whole, and what became of the others; turns after the first."""

    statuses: Counter[int] = field(default_factory=Counter)
    whole: int = 0
    told: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    later: int = 0
    hits: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    seconds: list[float] = field(default_factory=list)


async def converse(url: str, *, n_clients: int, seconds: float, n_tokens: int = 12, pause: float = 0.0) -> Outcome:
    """Let clients have one conversation after the other for so long; every stream is read to its end.

    A client waits up to `pause` seconds between turns, as people do.
    """
    outcome = Outcome()
    end = time.monotonic() + seconds
    timeout = aiohttp.ClientTimeout(total=None, sock_read=600)
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        clients = (_Client(session, outcome, random.Random(i), n_tokens, pause) for i in range(n_clients))
        await asyncio.gather(*(client.run(end) for client in clients))
    return outcome


class _Client:
    def __init__(
        self, session: aiohttp.ClientSession, outcome: Outcome, draw: random.Random, n_tokens: int, pause: float
    ) -> None:
        self._session, self._outcome, self._draw = session, outcome, draw
        self._n_tokens, self._pause = n_tokens, pause

    async def run(self, end: float) -> None:
        while time.monotonic() < end:
            about = f"Number {self._draw.randrange(10**6)}. Tell me about {self._draw.choice(TOPICS)}. "
            messages = [{"role": "user", "content": about * 4}]
            for turn in range(N_TURNS):
                if turn:
                    messages.append({"role": "user", "content": "And what else is there to say about it?"})
                    await asyncio.sleep(self._draw.uniform(0, self._pause))
                answer = await self._turn(messages, turn, end)
                if answer is None:
                    break
                messages.append({"role": "assistant", "content": answer})

    async def _turn(self, messages: list[dict[str, str]], turn: int, end: float) -> str | None:
        """One turn, asked again as long as it is refused or broken off; None at the end."""
        while time.monotonic() < end:
            begin = time.monotonic()
            try:
                events = await self._ask(messages)
            except aiohttp.ClientError as error:
                self._outcome.wrong.append(repr(error))
                await asyncio.sleep(0.2)
                continue
            if events is None:
                continue
            self._outcome.seconds.append(time.monotonic() - begin)
            self._count(events, turn)
            return "".join(each["choices"][0]["delta"].get("content") or "" for each in events if each.get("choices"))
        return None

    async def _ask(self, messages: list[dict[str, str]]) -> list[dict[str, Any]] | None:
        outcome = self._outcome
        body = {
            "model": "smollm2", "messages": messages, "stream": True, "max_tokens": self._n_tokens, "temperature": 0,
        }  # fmt: skip
        async with self._session.post("/v1/chat/completions", json=body) as reply:
            outcome.statuses[reply.status] += 1
            if reply.status != 200:
                if reply.status not in (429, 503) or "Retry-After" not in reply.headers:
                    outcome.wrong.append(f"{reply.status}: {await reply.text()}")
                await asyncio.sleep(float(reply.headers.get("Retry-After", 1)) * self._draw.uniform(0.3, 1))
                return None
            lines = [line[6:].strip() async for line in reply.content if line.startswith(b"data: ")]
        events = [json.loads(line) for line in lines if line != b"[DONE]"]
        if any("error" in event for event in events):
            outcome.told.append(str(events[-1]))
            return None
        if not lines or lines[-1] != b"[DONE]":
            outcome.wrong.append(f"a stream ended early: {lines[-1:]}")
            return None
        outcome.whole += 1
        return events

    def _count(self, events: list[dict[str, Any]], turn: int) -> None:
        usage = next((event["usage"] for event in reversed(events) if event.get("usage")), None)
        if usage is None:
            self._outcome.wrong.append("an answer without usage")
            return
        cached = usage["prompt_tokens_details"]["cached_tokens"]
        if turn:
            self._outcome.later += 1
            self._outcome.hits += cached >= HIT * usage["prompt_tokens"]
            self._outcome.prompt_tokens += usage["prompt_tokens"]
            self._outcome.cached_tokens += cached
