"""HTTP to a server of edgellm, from a process that has no event loop: a stream that can be interrupted.

    for data in stream(address, "/v1/chat/completions", body, interrupted=lambda: False):
        data["choices"]

A thread reads, so that the caller looks for an interruption several times a second while the server reads a prompt.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from edgellm.errors import EdgellmError, ModelNotFound, NetworkError, PromptTooLong, UsageError
from edgellm.wire.encoding import encoded

CONNECT_SECONDS = 10.0
LOOK_SECONDS = 0.1
# A server that says nothing for so long has forgotten us; the longest prompts take minutes.
SILENT_SECONDS = 1800.0
# One line of a stream, and an error.
MOST_LINE = 4 << 20
# A short answer that is no stream, and how long it may take: a process may have to start first.
MOST_REPLY = 64 << 20
REPLY_SECONDS = 120.0
# Lines that wait to be read.
MOST_WAITING = 4096


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is, and the key that it wants, if any."""

    url: str
    key: str | None = None

    @classmethod
    def of(cls, url: str, key: str | None) -> ServerAddress:
        """The address that was typed; its end may be that of OpenAI's API, /v1.

        Raises:
            UsageError: it is no address of HTTP.
        """
        plain = url.rstrip("/").removesuffix("/v1").rstrip("/")
        try:
            parts = urlsplit(plain)
            is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_whole = False
        if not is_whole or parts.path or parts.query or parts.fragment or parts.username:
            raise UsageError(f"--server {url:.80} is no server", hint="--server auto, never, or http://127.0.0.1:11435")
        return cls(plain, key)

    @property
    def headers(self) -> dict[str, str]:
        """What every request says."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    @property
    def json_headers(self) -> dict[str, str]:
        """What a request with a body says. A stored answer would be none of it: it has a seed of its own."""
        return {"Content-Type": "application/json", "Cache-Control": "no-cache", **self.headers}

    def open(self) -> http.client.HTTPConnection:
        """A connection, which is made by the first request."""
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=CONNECT_SECONDS)


def stream(
    address: ServerAddress, path: str, body: Mapping[str, Any], *, interrupted: Callable[[], bool]
) -> Generator[dict[str, Any], None, None]:
    """The server-sent events of an answer; it ends early if `interrupted`, and the server then stops computing.

    Raises:
        NetworkError: the server cannot be reached, or goes away before the answer ends.
        ModelNotFound, PromptTooLong, UsageError, EdgellmError: it refuses the request.
    """
    exchange = _Exchange(address, path, encoded({**body, "stream": True}))
    try:
        status = exchange.next(interrupted)
        if isinstance(status, int) and status != http.client.OK:
            raise refused(address, status, exchange.next(interrupted))
        while isinstance(line := exchange.next(interrupted), bytes):
            if not line.startswith(b"data:"):
                continue
            data = _parsed(line)
            if data is None:
                return
            if "error" in data and not data.get("choices"):
                raise refused(address, _status_of(data["error"]), line.removeprefix(b"data:"))
            yield data
    finally:
        exchange.close()


def ask(address: ServerAddress, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object that a request is answered with; raises as `stream` does."""
    connection = address.open()
    connection.timeout = REPLY_SECONDS
    try:
        connection.request("POST", path, encoded(body), address.json_headers)
        with connection.getresponse() as reply:
            status, data = reply.status, reply.read(MOST_REPLY)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise lost(address, error) from None
    finally:
        connection.close()
    if status != http.client.OK:
        raise refused(address, status, data)
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(data)
        if isinstance(found, dict):
            return found
    raise no_answer(data[:80])


def refused(address: ServerAddress, status: int, reply: Any) -> EdgellmError:
    """The error that a server answers with, as one of ours."""
    with contextlib.suppress(ValueError, RecursionError, TypeError, AttributeError, LookupError):
        error = json.loads(reply)["error"]
        code, message = error.get("code"), " ".join(str(error.get("message")).split())[:500]
        if code == "context_length_exceeded":
            return PromptTooLong(message, hint="--server never loads the model with a larger context")
        if code == "model_not_found":
            return ModelNotFound(f"{address.url}: {message}", hint="--server never")
        if status != http.client.UNAUTHORIZED:
            what = f"the server at {address.url} refuses this"
            return EdgellmError(what, why=message, hint="--server never", status=status)
    if status == http.client.UNAUTHORIZED:
        return EdgellmError(f"the server at {address.url} wants another key", hint="EDGELLM_API_KEY=KEY")
    what = f"the server at {address.url} answers with status {status}"
    return EdgellmError(what, hint="--server never", status=status)


def _status_of(error: Any) -> int:
    """The status of an error that comes in the middle of a stream: 503 if a worker has ended."""
    is_busy = isinstance(error, dict) and error.get("type") == "overloaded_error"
    return http.client.SERVICE_UNAVAILABLE if is_busy else http.client.INTERNAL_SERVER_ERROR


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The JSON of a line; None at the end of the stream."""
    text = line.removeprefix(b"data:").strip()
    if text == b"[DONE]":
        return None
    with contextlib.suppress(ValueError, RecursionError):
        data = json.loads(text)
        if isinstance(data, dict):
            return data
    raise no_answer(line[:80])


def lost(address: ServerAddress, error: Exception) -> NetworkError:
    """The error of a connection that cannot be made, or ends too early."""
    what = f"the server at {address.url} went away or cannot be reached"
    why = str(getattr(error, "strerror", None) or error)[:200]
    return NetworkError(what, why=why or "no reason", hint="edgellm ps, or --server never")


def no_answer(what: object) -> NetworkError:
    """The error of a server that sends what no server of edgellm sends."""
    return NetworkError("the server sent something that is no answer", why=repr(what)[:100], hint="--server never")


class _Exchange:
    """One request, and what comes back: the status, then lines, or the whole text of an error."""

    def __init__(self, address: ServerAddress, path: str, body: bytes) -> None:
        self._address = address
        self._connection = address.open()
        self._arrived: queue.Queue[int | bytes | Exception] = queue.Queue(MOST_WAITING)
        self._closed = threading.Event()
        # The connection forgets it when the server wants to hang up.
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, args=(path, body), daemon=True)
        self._thread.start()

    def next(self, interrupted: Callable[[], bool]) -> int | bytes | None:
        """What arrives next; None if the user interrupts."""
        until = time.monotonic() + SILENT_SECONDS
        while not interrupted():
            with contextlib.suppress(queue.Empty):
                found = self._arrived.get(timeout=LOOK_SECONDS)
                if isinstance(found, Exception):
                    raise lost(self._address, found)
                return found
            if time.monotonic() > until:
                raise NetworkError(f"the server at {self._address.url} says nothing any more", hint="--server never")
        return None

    def close(self) -> None:
        """End the connection, and with it the server's work."""
        self._closed.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(CONNECT_SECONDS)
        self._connection.close()

    def _run(self, path: str, body: bytes) -> None:
        try:
            with contextlib.closing(self._replies(path, body)) as replies:
                for each in replies:
                    if not self._hand_over(each):
                        return
            raise ConnectionError("the connection ended")
        except (OSError, ValueError, http.client.HTTPException, AttributeError) as error:  # closed by the other thread
            self._hand_over(error)

    def _replies(self, path: str, body: bytes) -> Generator[int | bytes, None, None]:
        self._connection.connect()
        self._socket = self._connection.sock
        self._socket.settimeout(None)
        self._connection.request("POST", path, body, self._address.json_headers)
        with self._connection.getresponse() as reply:
            yield reply.status
            if reply.status != http.client.OK:
                yield reply.read(MOST_LINE)
            while line := reply.readline(MOST_LINE):
                yield line

    def _hand_over(self, each: int | bytes | Exception) -> bool:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._arrived.put(each, timeout=LOOK_SECONDS)
                return True
        return False
