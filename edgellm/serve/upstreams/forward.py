"""Passes a request on to the upstream that answers first, and to the next one where it had not begun to answer.

return forward(request, fleet, name)

A whole answer is read before any of it is sent on; a stream begins with its first event. Until then a request whose
upstream dies, is busy or shuts down goes to another one. After that the client gets the error event of its protocol.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from edgellm.serve.http.current import current
from edgellm.serve.http.problems import RETRY_SECONDS, Problem
from edgellm.serve.http.response import EVENTS, LINES, LongResponse, Output
from edgellm.serve.upstreams.asked import RequestedModel
from edgellm.serve.upstreams.fleet import Fleet
from edgellm.serve.upstreams.link import Lost, UpstreamReply
from edgellm.serve.upstreams.member import Member

JSON, TEXT = "application/json", "text/plain"
# Whole answers, and single events of streams.
MOST_WHOLE, MOST_EVENT, MOST_ERROR = 64 << 20, 16 << 20, 1 << 20
# Larger bodies are read for their prompt in a thread, so that nobody waits for it.
LARGE_BODY = 256 << 10
LONGEST_RETRY = 60
# What the upstream must know of the client's request; its key is not among it.
SENT = ("accept", "content-type", "cache-control", "anthropic-version", "anthropic-beta")
BUSY, UNAVAILABLE, LOOPS = 429, 503, 508
# Of a proxy in between, and of a front or a key that are set up wrongly: another upstream may do better.
ELSEWHERE = frozenset({401, 403, 502, 504, LOOPS})


@dataclass(slots=True)
class Refusals:
    """What upstreams that gave no answer said: how many were full, how soon to come again, and the last reason."""

    n_full: int = 0
    retry_after: int = LONGEST_RETRY
    why: str = ""

    def note(self, reply: UpstreamReply) -> None:
        """An upstream is full or away for a moment."""
        self.n_full += reply.status == BUSY
        given = reply.headers.get("retry-after", "")
        seconds = int(given) if given.isdecimal() and len(given) < 6 else RETRY_SECONDS
        self.retry_after = min(self.retry_after, max(seconds, 1))

    def problem(self, n_tried: int) -> Problem:
        """The error for a request that nobody answers."""
        wait = min(self.retry_after, LONGEST_RETRY)
        if self.n_full:
            what = f"{self.n_full} of {n_tried} servers have no room for another request"
            return Problem(BUSY, what, code="queue-full", retry_after=wait)
        wait = RETRY_SECONDS if wait == LONGEST_RETRY else wait
        what = f"none of {n_tried} servers answers" + (f": {self.why}" if self.why else "")
        return Problem(UNAVAILABLE, what, code="no-upstream", retry_after=wait)


async def forward(request: Request, fleet: Fleet, name: str | None = None) -> Response:
    """The answer of an upstream; `name` is the model that the path names."""
    if fleet.front in request.headers.get("via", ""):
        raise Problem(LOOPS, "this request has been here before: the upstreams lead back to this server", code="loop")
    if {".", ".."} & set(request.url.path.split("/")) or {".", ".."} & set(request.scope["path"].split("/")):
        raise Problem(404, "there is nothing at a path with . or .. in it", code="not-found")
    # The guards read bodies of requests that may have one; nobody waits for those of others.
    body = b"" if request.method in ("GET", "HEAD") else await request.body()
    if len(body) > LARGE_BODY:
        asked = await asyncio.to_thread(RequestedModel.of, body, name)
    else:
        asked = RequestedModel.of(body, name)
    if any(member.snapshot.has(asked.model or "") for member in fleet.members):
        current().model = asked.model or ""
    headers = {each.title(): request.headers[each] for each in (*SENT, "via") if each in request.headers}
    path = request.scope.get("raw_path", b"").decode("ascii", "replace") or request.url.path
    path = path.partition("?")[0] + (f"?{request.url.query}" if request.url.query else "")

    async def work(out: Output) -> None:
        await _Forwarding(fleet, asked, out).run(request.method, path, body, headers)

    return LongResponse(work)


class _Forwarding:
    """One request on its way."""

    def __init__(self, fleet: Fleet, asked: RequestedModel, out: Output) -> None:
        self._fleet, self._asked, self._out = fleet, asked, out

    async def run(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Try one upstream after the other until one answers."""
        tried: list[Member] = []
        refusals = Refusals()
        while (member := self._fleet.choose(self._asked, tried)) is not None:
            self._fleet.n_retries += bool(tried)
            tried.append(member)
            is_hit = member.cached_bytes(self._asked) > 0
            begin = time.monotonic()
            try:
                with member.answering(self._asked):
                    async with member.link.exchange(method, path, body, headers) as reply:
                        if await self._pass(reply, refusals):
                            member.answered_in(self._asked, time.monotonic() - begin, is_hit=is_hit)
                            return
                member.refused += reply.status in (BUSY, UNAVAILABLE)
                member.lost += reply.status in ELSEWHERE
            except Lost as error:
                member.lost += 1
                if error.is_refusal:
                    member.failed(error)
                refusals.why = error.why
                if self._out.media_type:
                    what = "the server that wrote this answer went away in the middle of it"
                    raise Problem(UNAVAILABLE, what, code="upstream-lost", retry_after=RETRY_SECONDS) from None
        raise refusals.problem(len(tried)) if tried else self._fleet.nobody(self._asked)

    async def _pass(self, reply: UpstreamReply, refusals: Refusals) -> bool:
        """Pass an answer on; returns False for one that another upstream may do better."""
        if reply.status in (BUSY, UNAVAILABLE):
            refusals.note(reply)
            return False
        if reply.status in ELSEWHERE:
            refusals.why = f"status {reply.status}"
            return False
        if reply.status == 200 and reply.media_type in (EVENTS, LINES):
            await self._stream(reply)
            return True
        data = await _whole(reply.chunks, MOST_WHOLE if reply.status == 200 else MOST_ERROR)
        if reply.status < 200 or 300 <= reply.status < 400 or (data and reply.media_type not in (JSON, TEXT)):
            raise Lost(f"it answers with status {reply.status} and {reply.media_type[:40] or 'no type'}")
        await self._out.whole(data, reply.media_type or JSON, reply.status, dict(reply.headers))
        return True

    async def _stream(self, reply: UpstreamReply) -> None:
        is_open = False
        async for events in _events(reply.chunks, b"\n\n" if reply.media_type == EVENTS else b"\n"):
            if not is_open:
                self._out.headers.update(reply.headers)
                self._out.open(reply.media_type)
                is_open = True
            self._out.write(events)
            await self._out.flush()
        if not is_open:
            raise Lost("its stream is empty")
        await self._out.close()


async def _events(chunks: AsyncIterator[bytes], end: bytes) -> AsyncIterator[bytes]:
    """The bytes of a stream, cut between events only: an upstream that dies leaves no half of one."""
    pending = bytearray()
    async for chunk in chunks:
        begin = max(0, len(pending) - len(end))
        pending += chunk
        cut = pending.rfind(end, begin)
        if cut >= 0:
            yield bytes(pending[: cut + len(end)])
            del pending[: cut + len(end)]
        elif len(pending) > MOST_EVENT:
            raise Lost("its stream has no end of an event")
    if pending:
        yield bytes(pending)


async def _whole(chunks: AsyncIterator[bytes], most: int) -> bytes:
    data = bytearray()
    async for chunk in chunks:
        data += chunk
        if len(data) > most:
            raise Lost(f"its answer is larger than {most:,} bytes")
    return bytes(data)
