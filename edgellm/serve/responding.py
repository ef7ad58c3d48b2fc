"""Answers that take long: worked on while the client is there, and dropped when it goes.

async def work(out: Output) -> None:
    await out.json({"object": "list", "data": []})

return Working(work)

Until its first byte an error becomes a status of its own; after that it is the stream's last event.
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
from edgellm.serve.encoding import encoded
from edgellm.serve.problems import Problem, bodiless, problem_of
from edgellm.serve.upstream import UpstreamRefused

EVENTS, LINES = "text/event-stream", "application/x-ndjson"
# A client that takes nothing for so long is as good as gone.
WRITE_SECONDS = 60.0

log = logging.getLogger("edgellm.serve")


class Output:
    """What is sent back: one JSON document, or the pieces of a stream."""

    def __init__(self, send: Send, give_up: Callable[[], None]) -> None:
        self._send = send
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self.media_type = ""

    async def json(self, data: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """The whole answer."""
        self.media_type = "application/json"
        body = encoded(data)
        await self._start(status, {"content-length": str(len(body)), **(headers or {})})
        await self._write({"type": "http.response.body", "body": body})

    async def open(self, media_type: str = EVENTS) -> None:
        """Begin a stream."""
        self.media_type = media_type
        await self._start(200, {"cache-control": "no-store", "x-accel-buffering": "no"})

    async def write(self, data: bytes) -> None:
        """The next piece; it waits for a client that is slow, but not for ever."""
        await self._write({"type": "http.response.body", "body": data, "more_body": True})

    async def close(self) -> None:
        """The end of the stream."""
        await self._write({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, headers: dict[str, str]) -> None:
        kind = self.media_type if self.media_type != EVENTS else f"{EVENTS}; charset=utf-8"
        pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode()), *pairs]}
        await self._send(start)

    async def _write(self, message: dict[str, Any]) -> None:
        timer = self._loop.call_later(WRITE_SECONDS, self._give_up)
        try:
            await self._send(message)
        finally:
            timer.cancel()


Work = Callable[[Output], Awaitable[None]]


class Working(Response):
    """The response of an endpoint whose work may be long."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Work until it is done or the client has gone."""
        task: asyncio.Task[None]

        def give_up() -> None:
            task.cancel()

        output = Output(send, give_up)
        task = asyncio.create_task(self._run(output, scope["path"]))
        gone = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            task.cancel()  # of no effect on one that is done
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self, output: Output, path: str) -> None:
        try:
            await self._work(output)
            return
        except Problem as error:
            problem = error
        except (EdgellmError, UpstreamRefused) as error:
            problem = problem_of(error)
        except Exception:
            log.exception("a request to %s failed", path)
            problem = Problem(500, "an error inside edgellm; its log has more", code="internal")
        await _tell(problem, output, path)


async def _tell(problem: Problem, output: Output, path: str) -> None:
    told = problem.for_path(path)
    if not output.media_type:
        await output.json(told, problem.status, bodiless(problem.headers))
        return
    if output.media_type == EVENTS:
        name = b"event: error\n" if path.startswith(("/v1/messages", "/v1/responses")) else b""
        await output.write(name + b"data: " + encoded(told) + b"\n\n")
    elif output.media_type == LINES:
        await output.write(encoded(told) + b"\n")
    await output.close()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
