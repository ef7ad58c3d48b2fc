"""What a request must pass before any endpoint sees it: Host, origin, key, size, and time.

app = Guards(app, options, apis)

The Host check stops DNS rebinding (a page whose name is made to point here). The origin check is needed because
browsers send simple requests of foreign pages without asking; before others they ask, and are answered here. Keys are
compared in constant time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgellm.serve.http.api import SCOPE_KEY, Api, Apis
from edgellm.serve.http.origins import Origins, is_preflight
from edgellm.serve.http.problems import Problem, uncached
from edgellm.serve.options import LOOPBACK, ServeOptions
from edgellm.wire.encoding import encoded

# Open without a key: the health check, and the page, which asks for a key itself.
PUBLIC = frozenset({"/", "/health", "/favicon.ico"})
# Some clients send all of a large body before they read: read on for this long, or they never see the error.
LINGER_SECONDS = 3.0


class Guards:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, options: ServeOptions, apis: Apis) -> None:
        self._app = app
        self._apis = apis
        self._options = options
        self._keys = [key.encode() for key in sorted(options.api_keys)]
        self._origins = Origins(options.allowed_origins)
        self._hosts = LOOPBACK | {options.host} | options.allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        api = scope[SCOPE_KEY] = self._apis.of(scope["path"])
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        send = _with_headers(send, self._origins.headers(headers.get("origin")))
        options = self._options
        is_upload = scope["method"] == "POST" and scope["path"] in api.uploads
        body: _Body | _Upload = (
            _Upload(receive, options.max_upload, options.body_seconds)
            if is_upload
            else _Body(receive, options.max_body, options.body_seconds)
        )
        try:
            if sum(name == b"host" for name, _ in scope["headers"]) > 1:
                raise Problem(400, "a request has one Host", code="bad-host")
            self._check_host(headers)
            if is_preflight(scope["method"], headers):
                self._check_origin(headers, is_foreign=True)
                await _begin(204, self._origins.preflight(headers), send)
                await send({"type": "http.response.body", "body": b""})
                return
            self._check_origin(headers)
            self._check_key(scope["path"], headers)
            if scope["method"] in ("POST", "PUT", "PATCH", "DELETE"):
                await body.read(headers.get("content-length"))
        except Problem as problem:
            await _refuse(problem, api, receive, send)
            return
        await self._app(scope, body.receive, send)

    def _check_host(self, headers: Mapping[str, str]) -> None:
        host = _host_of(headers.get("host", ""))
        if not self._keys and host not in self._hosts:
            message = f"Host {host[:100]!r} is not this server; --allowed-host adds one"
            raise Problem(403, message, code="bad-host")

    def _check_origin(self, headers: Mapping[str, str], *, is_foreign: bool = False) -> None:
        """Refuse pages of other hosts; `is_foreign`: that it is another one's is known, whatever its host."""
        origin = headers.get("origin")
        if not origin or self._origins.allow(origin):
            return
        if is_foreign or _host_of(origin.partition("://")[2]) != _host_of(headers.get("host", "")):
            message = f"pages of {origin[:100]!r} may not use this server; --allowed-origin lets them"
            raise Problem(403, message, code="bad-origin")

    def _check_key(self, path: str, headers: Mapping[str, str]) -> None:
        if self._keys and path not in PUBLIC and not self._knows(headers):
            raise Problem(401, "a key is needed: Authorization: Bearer KEY", code="invalid_api_key")

    def _knows(self, headers: Mapping[str, str]) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        offered = key.encode("latin-1", "replace")
        # Compare with every key, so that the time does not reveal which one was nearly right.
        return sum(hmac.compare_digest(offered, known) for known in self._keys) > 0


class _Body:
    """The body of a request, read before any endpoint runs: bounded in size and in time."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._data: bytes | None = None

    async def read(self, announced: str | None) -> None:
        """Read it all; `Problem` 413 or 408."""
        _check_length(announced, self._limit)
        try:
            self._data = await asyncio.wait_for(self._whole(), self._seconds)
        except asyncio.TimeoutError:
            raise _too_slow(self._seconds) from None

    async def _whole(self) -> bytes:
        whole = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "the body ended early", code="bad-body")
            whole += message.get("body", b"")
            if len(whole) > self._limit:
                whole.clear()
                raise _too_large(self._limit)
            if not message.get("more_body", False):
                return bytes(whole)

    async def receive(self) -> Message:
        """The body once, then the connection's own messages."""
        data, self._data = self._data, None
        if data is not None:
            return {"type": "http.request", "body": data, "more_body": False}
        return await self._receive()


class _Upload:
    """The body of a request with a file, which its endpoint reads as it arrives: bounded in the same way.

    It may take as long as it needs, but some of it must always come.
    """

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._n_bytes = 0
        self._is_over = False

    async def read(self, announced: str | None) -> None:
        """Refuse what is announced as too large; nothing is read yet."""
        _check_length(announced, self._limit)

    async def receive(self) -> Message:
        """The next piece of the body, then the connection's own messages."""
        if self._is_over:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._seconds)
        except asyncio.TimeoutError:
            raise _too_slow(self._seconds) from None
        self._is_over = not message.get("more_body", False)
        self._n_bytes += len(message.get("body", b""))
        if self._n_bytes > self._limit:
            raise _too_large(self._limit)
        return message


def _check_length(announced: str | None, limit: int) -> None:
    if announced is not None and announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> Problem:
    return Problem(413, f"the body is larger than {limit:,} bytes", code="body-too-large")


def _too_slow(seconds: float) -> Problem:
    return Problem(408, f"the body did not arrive within {seconds:.0f} s", code="too-slow")


def _host_of(netloc: str) -> str:
    """The name in a Host header, without its port and in lower case."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


async def _refuse(problem: Problem, api: Api, receive: Receive, send: Send) -> None:
    data = encoded(api.error(problem))
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(data)),
        "Connection": "close",  # the rest of the body is not read
        **uncached(problem.headers),
    }
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    await _begin(problem.status, headers, send)
    await send({"type": "http.response.body", "body": data, "more_body": True})
    if problem.status == 413:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_discard(receive), LINGER_SECONDS)
    await send({"type": "http.response.body", "body": b""})


async def _begin(status: int, headers: Mapping[str, str], send: Send) -> None:
    await send({"type": "http.response.start", "status": status, "headers": _pairs(headers)})


def _pairs(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


def _with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """A `send` that adds headers to whatever response begins."""
    if not headers:
        return send
    pairs = _pairs(headers)

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *pairs]}
        await send(message)

    return send_with_headers


async def _discard(receive: Receive) -> None:
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
