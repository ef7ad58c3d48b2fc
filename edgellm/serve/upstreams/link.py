"""HTTP to one upstream: short questions with an answer of bounded size, and exchanges that are passed on as they come.

    link = Link("http://box1:11435", key="secret", via="edgellm-3f2a")
    status = await link.json("/status.json")
    async with link.exchange("POST", "/v1/chat/completions", body, headers) as reply:
        async for chunk in reply.chunks: ...

Everything that goes wrong is `Lost`. Nothing that an upstream sends is trusted: no redirect is followed, nothing is
unpacked, and a question ends after `ASK_SECONDS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from pydantic_core import from_json
from yarl import URL

CONNECT_SECONDS = 3.0
ASK_SECONDS = 5.0
MOST_ANSWER = 8 << 20
# The headers of an answer that clients may see.
PASSED = ("retry-after", "cache-control", "x-accel-buffering", "x-edgellm-cache")


class Lost(Exception):
    """An upstream that cannot be reached, went away, or sent what is no answer.

    `is_refusal`: there is no connection. `is_late`: it may only be slow. `is_closed`: its machine is there, but nothing
    listens; a server that stops may still be writing its last answers.
    """

    def __init__(self, why: str, *, is_refusal: bool = False, is_late: bool = False, is_closed: bool = False) -> None:
        super().__init__(why)
        self.why, self.is_refusal, self.is_late, self.is_closed = why, is_refusal, is_late, is_closed


@dataclass(frozen=True, slots=True)
class UpstreamReply:
    """The beginning of an answer; `media_type` is in lower case and without parameters."""

    status: int
    media_type: str
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]


class Link:
    """The connections to one upstream. They are not kept: a server may close an idle one just as it is used again."""

    def __init__(self, url: str, *, key: str | None, via: str) -> None:
        self.url = url
        self._headers = {"Accept-Encoding": "identity", "Via": f"1.1 {via}"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._session: aiohttp.ClientSession | None = None
        self._replies: set[aiohttp.ClientResponse] = set()
        self._gone: asyncio.Future[None] | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    async def close(self) -> None:
        """End everything."""
        self.abandon()
        if self._session is not None:
            await self._session.close()
            self._session = None

    def abandon(self) -> None:
        """End what is under way: the upstream answers nothing any more."""
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        self._gone = None
        for reply in list(self._replies):
            reply.close()  # whoever reads it gets an error

    async def get(self, path: str, most: int = MOST_ANSWER) -> bytes:
        """The body of a short answer.

        Raises:
            Lost: it does not come in time, is too large, or has another status than 200.
        """
        try:
            return await asyncio.wait_for(self._get(path, most), ASK_SECONDS)
        except asyncio.TimeoutError:
            raise Lost(f"no answer within {ASK_SECONDS:.0f} s", is_late=True) from None

    async def json(self, path: str) -> Any:
        """The JSON of a short answer; raises as `get` does."""
        try:
            return from_json(await self.get(path), allow_inf_nan=False)
        except ValueError:
            raise Lost("it answers with something that is no JSON") from None

    async def _get(self, path: str, most: int) -> bytes:
        async with self.exchange("GET", path, b"", {}) as reply:
            if reply.status != 200:
                raise Lost(_refused(reply.status))
            data = bytearray()
            async for chunk in reply.chunks:
                data += chunk
                if len(data) > most:
                    raise Lost(f"its answer is larger than {most:,} bytes")
            return bytes(data)

    @contextlib.asynccontextmanager
    async def exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator[UpstreamReply]:
        """Ask, and wait for the head of the answer, as long as the upstream lives; leaving ends the exchange.

        Raises:
            Lost: at the beginning, or while chunks are read.
        """
        via = ", ".join(filter(None, (headers.get("Via"), self._headers["Via"])))
        sent = {**headers, **self._headers, "Via": via}
        with _failures():
            url = URL(self.url + path, encoded=True)  # as it is: nothing in it is resolved here
            response = await self._until_gone(
                self._open().request(method, url, data=body or None, headers=sent, allow_redirects=False)
            )
        self._replies.add(response)
        try:
            yield _reply(response)
        finally:
            self._replies.discard(response)
            response.close()

    async def _until_gone(self, request: Awaitable[aiohttp.ClientResponse]) -> aiohttp.ClientResponse:
        if self._gone is None:
            self._gone = asyncio.get_running_loop().create_future()
        asking: asyncio.Future[aiohttp.ClientResponse] = asyncio.ensure_future(request)
        try:
            waiting: set[asyncio.Future[Any]] = {asking, self._gone}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
            raise Lost("it answers nothing any more")
        except BaseException:
            asking.add_done_callback(_discard)
            asking.cancel()
            raise


def _discard(asking: asyncio.Future[aiohttp.ClientResponse]) -> None:
    if not asking.cancelled() and asking.exception() is None:
        asking.result().close()


def _refused(status: int) -> str:
    known = {
        401: "it wants another key: --upstream-key",
        403: "it refuses this front: start it with --allowed-host and the name by which it is asked",
        508: "it leads back to this front",
    }
    return known.get(status, f"it answers with status {status}")


def _reply(response: aiohttp.ClientResponse) -> UpstreamReply:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise Lost("it packs its answers")
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    headers = {name: _plain(response.headers[name]) for name in PASSED if name in response.headers}
    return UpstreamReply(response.status, media_type, headers, _chunks(response.content))


def _plain(text: str) -> str:
    return "".join(letter for letter in text[:200] if " " <= letter <= "~")


async def _chunks(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    with _failures():
        async for chunk in content.iter_any():
            yield chunk


@contextlib.contextmanager
def _failures() -> Any:
    """Turn the failures of a connection into `Lost`."""
    try:
        yield
    except aiohttp.ClientConnectorError as error:
        number = getattr(error.os_error, "errno", None)
        why = os.strerror(number).lower() if isinstance(number, int) and number > 0 else str(error)
        raise Lost(why[:200], is_refusal=True, is_closed=number == errno.ECONNREFUSED) from None
    except aiohttp.ServerTimeoutError:
        raise Lost(f"no connection within {CONNECT_SECONDS:.0f} s", is_refusal=True) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Lost(" ".join(str(error).split())[:200] or type(error).__name__) from None
