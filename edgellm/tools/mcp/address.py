"""A server at an address: streamable HTTP with bounded answers.

async with reached(config) as streams:      # those of the SDK's ClientSession
    read, write = streams
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import streamable_http_client

from edgellm.tools.mcp.config import ServerConfig

CONNECT_SECONDS = 20.0
# Of one answer, and of one event in a stream.
MOST_ANSWER, MOST_EVENT = 64 << 20, 8 << 20


class AnswerTooLarge(httpx2.TransportError):
    """A server does not stop answering."""


class _BoundedStream(httpx2.AsyncByteStream):
    """The body of an answer, up to its limit."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MOST_ANSWER
        async for piece in self._stream:
            left -= len(piece)
            if left < 0:
                raise AnswerTooLarge(f"it sent more than {MOST_ANSWER >> 20} MiB")
            yield piece

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()


class CheckedTransport(httpx2.AsyncBaseTransport):
    """Connects to the address that a check gives for a host, and to no other; TLS still asks for the host's name."""

    def __init__(self, check: Callable[[str, int], Awaitable[str]]) -> None:
        self._check = check
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request."""
        url = request.url
        address = await self._check(url.host, url.port or (443 if url.scheme == "https" else 80))
        request.extensions = {**request.extensions, "sni_hostname": url.host}
        request.url = url.copy_with(host=address)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


async def _bound(answer: httpx2.Response) -> None:
    """Give an answer its limit, and let nobody decompress it: a small answer could become a huge one."""
    answer.headers.pop("content-encoding", None)
    if isinstance(answer.stream, httpx2.AsyncByteStream):
        answer.stream = _BoundedStream(answer.stream)


@asynccontextmanager
async def reached(
    config: ServerConfig, transport: httpx2.AsyncBaseTransport | None = None
) -> AsyncIterator[TransportStreams]:
    """Streams to a server; nothing is sent before the first message. `transport` makes the connections."""
    timeout = httpx2.Timeout(CONNECT_SECONDS, read=config.call_seconds)
    headers = {**config.headers, "accept-encoding": "identity"}
    async with (
        httpx2.AsyncClient(
            headers=headers, timeout=timeout, transport=transport, event_hooks={"response": [_bound]}
        ) as client,
        streamable_http_client(config.url, http_client=client, max_sse_event_size=MOST_EVENT) as streams,
    ):
        yield streams
