"""Responses that take long: computed while the client is there, and cancelled when it goes.

async def work(out: Output) -> None:
    await out.json({"object": "list", "data": []})

return LongResponse(work)

Before the first byte, an error becomes a status of its own; after that it is the last event of the stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from edgellm.errors import EdgellmError
from edgellm.serve.http.api import Api, api_of
from edgellm.serve.http.problems import Problem, problem_of, uncached
from edgellm.wire.encoding import encoded

EVENTS, LINES = "text/event-stream", "application/x-ndjson"
# A client that reads nothing for this long counts as gone.
WRITE_SECONDS = 60.0

log = logging.getLogger("edgellm.serve")


class Output:
    """What is sent back: one JSON document, or a stream whose pieces are sent together if they come together."""

    def __init__(self, send: Send, give_up: Callable[[], None]) -> None:
        self._send = send
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._start: dict[str, Any] | None = None
        self._pieces: list[bytes] = []
        self.media_type = ""
        # Of the response, whatever it becomes.
        self.headers: dict[str, str] = {}

    async def json(self, data: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """The whole answer."""
        await self.whole(encoded(data), "application/json", status, headers)

    async def whole(
        self, body: bytes, media_type: str, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        """The whole answer, as bytes."""
        self.media_type = media_type
        self._start = self._begin(status, {"content-length": str(len(body)), **(headers or {})})
        self._pieces = [body]
        await self.close()

    def open(self, media_type: str = EVENTS) -> None:
        """Begin a stream."""
        self.media_type = media_type
        self._start = self._begin(200, {"cache-control": "no-store", "x-accel-buffering": "no"})

    def write(self, data: bytes) -> None:
        """Add a piece; the next `flush` sends it."""
        self._pieces.append(data)

    async def flush(self) -> None:
        """Send what has been written; waits for a slow client, for `WRITE_SECONDS` at most."""
        if self._start or self._pieces:
            await self._write(more=True)

    async def close(self) -> None:
        """Send the rest and end the response."""
        await self._write(more=False)

    def _begin(self, status: int, headers: dict[str, str]) -> dict[str, Any]:
        kind = self.media_type if self.media_type != EVENTS else f"{EVENTS}; charset=utf-8"
        pairs = [
            (name.lower().encode(), value.encode("latin-1")) for name, value in {**self.headers, **headers}.items()
        ]
        return {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode()), *pairs]}

    async def _write(self, *, more: bool) -> None:
        start, self._start = self._start, None
        body = b"".join(self._pieces)
        self._pieces.clear()
        timer = self._loop.call_later(WRITE_SECONDS, self._give_up)
        try:
            if start:
                await self._send(start)
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
        finally:
            timer.cancel()


Work = Callable[[Output], Awaitable[None]]


class LongResponse(Response):
    """The response of an endpoint whose work may take long."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Work until it is done or the client is gone."""
        task: asyncio.Task[None]

        def give_up() -> None:
            task.cancel()

        output = Output(send, give_up)
        task = asyncio.create_task(self._run(output, scope["path"], api_of(scope)))
        gone = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            task.cancel()  # of no effect on one that is done
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self, output: Output, path: str, api: Api) -> None:
        try:
            await self._work(output)
            return
        except Problem as error:
            problem = error
        except EdgellmError as error:
            problem = problem_of(error)
        except Exception:
            log.exception("a request to %s failed", path)
            problem = Problem(500, "an error inside edgellm; its log has more", code="internal")
        await _fail(problem, output, api)


async def _fail(problem: Problem, output: Output, api: Api) -> None:
    if not output.media_type:
        await output.json(api.error(problem), problem.status, uncached(problem.headers))
        return
    if output.media_type in (EVENTS, LINES):
        output.write(api.error_event(problem))
    await output.close()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
