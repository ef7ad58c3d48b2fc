"""Requests to a worker: whole answers, and streams of server-sent events. The only module that knows aiohttp.

reply = await upstream.post("/v1/embeddings", body)
async with upstream.stream("/v1/chat/completions", body, out.flush) as events:
    async for event in events: event.data["choices"]

Leaving a stream early closes its connection, by which the worker knows that nobody wants the rest.

What has come is handed on before more is waited for, so that tokens that came together are sent together.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from pydantic_core import from_json

from edgellm.errors import EngineError
from edgellm.serve.encoding import encoded

READY_SECONDS = 2.0
# One event: a long answer's last one holds all of its text.
MOST_EVENT = 64 << 20
DONE = b"[DONE]"
BeforeWait = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: status and JSON."""

    status: int
    data: Any


@dataclass(slots=True)
class Event:
    """A server-sent event: its name if it has one, its JSON, and the line as it came (without the blank one)."""

    name: str
    data: Any
    raw: bytes


class UpstreamRefused(Exception):
    """The worker answers a request with an error; `data` is its JSON."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"status {reply.status}")
        self.reply = reply

    @property
    def error(self) -> Mapping[str, Any]:
        """The worker's `error` object, empty if it gave none."""
        error = self.reply.data.get("error") if isinstance(self.reply.data, dict) else None
        return error if isinstance(error, dict) else {}


class Upstream:
    """A worker behind its socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # A connection a request: the worker closes idle ones when it likes, and opening one costs next to nothing.
            connector = aiohttp.UnixConnector(str(self._socket), limit=0, force_close=True)
            timeout = aiohttp.ClientTimeout(total=None)  # a slow CPU may take an hour over a long answer
            self._session = aiohttp.ClientSession("http://worker", connector=connector, timeout=timeout)
        return self._session

    async def close(self) -> None:
        """Close all connections; what is under way ends."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def is_ready(self) -> bool:
        """Whether it has loaded its model."""
        try:
            async with self._open().get("/health", timeout=aiohttp.ClientTimeout(READY_SECONDS)) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def get(self, path: str) -> Any:
        """The JSON of a GET."""
        with _failures():
            async with self._open().get(path) as response:
                return await response.json(content_type=None)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON of a POST.

        Raises:
            UpstreamRefused: the worker's answer is an error.
            EngineError: the worker is gone.
        """
        with _failures():
            async with self._open().post(path, data=encoded(body), headers=JSON) as response:
                return _checked(response.status, await response.read())

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, body: Mapping[str, Any], before_wait: BeforeWait
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """The events of a POST; raises as `post` does. `before_wait` is awaited when those that have come are used."""
        with _failures():
            response = await self._open().post(path, data=encoded(body), headers=JSON)
            try:
                if response.status != 200:
                    _checked(response.status, await response.read())
                yield _events(response.content, before_wait)
            finally:
                response.close()


JSON = {"Content-Type": "application/json"}


def _checked(status: int, data: bytes) -> Any:
    try:
        decoded = json.loads(data)
    except ValueError:
        decoded = None
    if status != 200 or decoded is None:
        raise UpstreamRefused(Reply(status if status != 200 else 502, decoded))
    return decoded


async def _events(content: aiohttp.StreamReader, before_wait: BeforeWait) -> AsyncIterator[Event]:
    pending = b""
    with _failures():
        async for chunk in content.iter_any():
            *blocks, pending = (pending + chunk).split(b"\n\n")
            for block in blocks:
                if event := _event(block):
                    yield event
            if len(pending) > MOST_EVENT:
                raise EngineError("the worker's answer has no end")
            await before_wait()


def _event(block: bytes) -> Event | None:
    name, data = "", b""
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            data = line[5:].strip()
        elif line.startswith(b"event:"):
            name = line[6:].strip().decode()
    if not data or data == DONE:  # a comment that keeps the connection alive, or the end
        return None
    decoded = from_json(data)
    return None if decoded is None else Event(name, decoded, block)  # several prompts begin with null


@contextlib.contextmanager
def _failures() -> Any:
    """A worker that is gone, as an error of ours."""
    try:
        yield
    except (aiohttp.ClientError, ConnectionError) as error:
        raise EngineError("the worker ended while it answered", why=str(error) or type(error).__name__) from error
