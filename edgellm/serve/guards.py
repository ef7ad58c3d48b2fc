"""What a request must pass before anything looks at it: Host, origin, key, size, and time.

app = Guards(app, options)

Host is checked against DNS rebinding (a page whose name is made to point here), the origin because a browser sends
simple requests of foreign pages without asking. Keys are compared in constant time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgellm.serve.encoding import encoded
from edgellm.serve.options import LOOPBACK, ServeOptions
from edgellm.serve.problems import Problem, bodiless

# What anybody may see: that there is a server, and the page, which asks for a key itself.
PUBLIC = frozenset({"/", "/health", "/favicon.ico"})
# A client that sends all of a large body before it listens is listened to for so long, or it would not hear why.
LINGER_SECONDS = 3.0


class Guards:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, options: ServeOptions) -> None:
        self._app = app
        self._options = options
        self._keys = [key.encode() for key in sorted(options.api_keys)]
        self._hosts = LOOPBACK | {options.host} | options.allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with what is wrong."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        body = _Body(receive, self._options.max_body, self._options.body_seconds)
        try:
            if sum(name == b"host" for name, _ in scope["headers"]) > 1:
                raise Problem(400, "a request has one Host", code="bad-host")
            self._check(scope["path"], headers)
            if scope["method"] in ("POST", "PUT", "PATCH", "DELETE"):
                await body.read(headers.get("content-length"))
        except Problem as problem:
            await _refuse(problem, scope["path"], receive, send)
            return
        await self._app(scope, body.receive, send)

    def _check(self, path: str, headers: Mapping[str, str]) -> None:
        host = _host_of(headers.get("host", ""))
        if not self._keys and host not in self._hosts:
            message = f"Host {host[:100]!r} is not this server; --allowed-host adds one"
            raise Problem(403, message, code="bad-host")
        origin = headers.get("origin")
        if origin and origin not in self._options.allowed_origins and _host_of(urlsplit(origin).netloc) != host:
            message = f"pages of {origin[:100]!r} may not use this server; --allowed-origin lets them"
            raise Problem(403, message, code="bad-origin")
        if self._keys and path not in PUBLIC and not self._knows(headers):
            raise Problem(401, "a key is needed: Authorization: Bearer KEY", code="invalid_api_key")

    def _knows(self, headers: Mapping[str, str]) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        offered = key.encode("latin-1", "replace")
        # Every key is compared, so that the time tells nothing about which one was nearly right.
        return sum(hmac.compare_digest(offered, known) for known in self._keys) > 0


class _Body:
    """The body of a request, read before anybody works on it: bounded in size and in time."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._data: bytes | None = None

    async def read(self, announced: str | None) -> None:
        """Read it all; `Problem` 413 or 408."""
        if announced is not None and announced.isdecimal() and int(announced) > self._limit:
            raise self._too_large()
        try:
            self._data = await asyncio.wait_for(self._whole(), self._seconds)
        except asyncio.TimeoutError:
            message = f"the body did not arrive within {self._seconds:.0f} s"
            raise Problem(408, message, code="too-slow") from None

    async def _whole(self) -> bytes:
        whole = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "the body ended early", code="bad-body")
            whole += message.get("body", b"")
            if len(whole) > self._limit:
                whole.clear()
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(whole)

    def _too_large(self) -> Problem:
        return Problem(413, f"the body is larger than {self._limit:,} bytes", code="body-too-large")

    async def receive(self) -> Message:
        """The body once, then what the connection says."""
        data, self._data = self._data, None
        if data is not None:
            return {"type": "http.request", "body": data, "more_body": False}
        return await self._receive()


def _host_of(netloc: str) -> str:
    """The name in a Host header, without its port and in lower case."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


async def _refuse(problem: Problem, path: str, receive: Receive, send: Send) -> None:
    data = encoded(problem.for_path(path))
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(data)),
        "Connection": "close",  # the rest of the body is not read
        **bodiless(problem.headers),
    }
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": data, "more_body": True})
    if problem.status == 413:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_discard(receive), LINGER_SECONDS)
    await send({"type": "http.response.body", "body": b""})


async def _discard(receive: Receive) -> None:
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
