"""The HTTP server below the application; the only module that imports uvicorn.

run(app, options, bind(options), api, on_ready=ready, on_stop=stop)
"""

from __future__ import annotations

import asyncio
import http
import logging
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from edgellm.errors import UsageError
from edgellm.serve.http.api import Api
from edgellm.serve.http.problems import Problem
from edgellm.serve.options import ServeOptions
from edgellm.wire.encoding import encoded

# A request's first line and headers, in bytes.
MOST_HEAD = 64 << 10
KEEP_ALIVE_SECONDS = 30
MOST_CONNECTIONS = 1024


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits on a request's head, in bytes and in time; uvicorn itself has none."""

    # The JSON of an error. What is not HTTP belongs to no protocol, so one protocol stands in.
    error: Callable[[Problem], dict[str, Any]]
    head_seconds = 15.0
    # All bytes of a request. Bodies have a limit of their own, but not the trailers after a chunked body.
    most_bytes = 128 << 20

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for the head of a request."""
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of the head, and of the whole request."""
        self._n_bytes += len(data)
        if self._timer is not None and self._n_bytes > MOST_HEAD:
            head_ends = data.find(b"\r\n\r\n")
            if head_ends < 0 or self._n_bytes - len(data) + head_ends > MOST_HEAD:
                self.send_400_response("the headers are too large")
                return
        if self._n_bytes > self.most_bytes:
            self.send_400_response("the request is too large")
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Restart the clock: another request begins on this connection."""
        super().on_message_begin()
        if self._timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """The head is complete; stop the clock."""
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with the JSON of an error."""
        self._stop_timer()
        self._refuse(Problem(400, msg, code="bad-http"))

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        begun = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not begun:  # inside a response the error would be read as part of it
            reason = http.HTTPStatus(problem.status).phrase
            body = encoded(self.error(problem))
            head = f"HTTP/1.1 {problem.status} {reason}\r\ncontent-type: application/json\r\nconnection: close\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()

    def _expect_head(self) -> None:
        self._n_bytes = 0
        self._timer = self.loop.call_later(self.head_seconds, self._is_late)

    def _is_late(self) -> None:
        if self._n_bytes == 0:
            self.transport.close()  # nobody waits for an answer
        else:
            self._refuse(Problem(408, "the headers did not arrive in time", code="too-slow"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _protocol(options: ServeOptions, api: Api) -> type[PatientProtocol]:
    """The protocol with the limits of a server; uvicorn makes one for each connection."""

    class Limited(PatientProtocol):
        error = staticmethod(api.error)
        head_seconds = options.head_seconds
        most_bytes = MOST_HEAD + 4 * options.max_body + (options.max_upload if options.offers_documents else 0)

    return Limited


def bind(options: ServeOptions) -> socket.socket:
    """The socket to listen on.

    Raises:
        UsageError: the address is in use, or does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
    except OSError as error:
        listener.close()
        hint = f"another --port, or edgellm stop --port {options.port}"
        raise UsageError(
            f"cannot listen on {options.host}:{options.port}", why=error.strerror or str(error), hint=hint
        ) from error
    listener.set_inheritable(False)
    return listener


class _Server(uvicorn.Server):
    """Reports when it listens, and when a signal asks it to stop."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None], on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready, self._on_stop = on_ready, on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and report it."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Report the signal, and stop."""
        self._on_stop()
        super().handle_exit(sig, frame)


def run(
    app: ASGIApp,
    options: ServeOptions,
    listener: socket.socket,
    api: Api,
    *,
    on_ready: Callable[[], None],
    on_stop: Callable[[], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C; answers under way get `options.drain_seconds` to end.

    `api` writes the errors of requests that are no HTTP.
    """
    config = uvicorn.Config(
        app,
        http=_protocol(options, api),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(options.drain_seconds),
        limit_concurrency=MOST_CONNECTIONS,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    with listener:
        _Server(config, on_ready, on_stop).run([listener])
