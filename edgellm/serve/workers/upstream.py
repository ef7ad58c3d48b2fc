"""Requests to a worker: whole answers, and streams of server-sent events. The only module that knows aiohttp.

reply = await upstream.post("/v1/embeddings", body)
async with upstream.stream("/v1/chat/completions", body, out.flush) as chunks:
    async for chunk in chunks: chunk.data["choices"]

Leaving a stream early closes its connection, and llama-server then stops computing the answer.

All chunks that have arrived are handled before `before_wait` is awaited, so that tokens that came together are sent
together.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from pydantic_core import from_json

from edgellm.errors import EdgellmError
from edgellm.machine.child import ChildFailed
from edgellm.serve.http.problems import CONTEXT_EXCEEDED, Problem, exceeds_context
from edgellm.wire.encoding import encoded

READY_SECONDS = 2.0
# What llama-server calls a prompt that is longer than a slot's context.
TOO_LONG = "exceed_context_size_error"
# One event: a long answer's last one holds all of its text.
MOST_EVENT = 64 << 20
DONE = b"[DONE]"
BeforeWait = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Chunk:
    """A server-sent event: its JSON, and the line as it came, without the blank one after it."""

    data: Any
    raw: bytes


class UpstreamRefused(Problem):
    """llama-server answers a request with an error; `error` is its JSON, empty if it gave none."""

    error: Mapping[str, Any]


def refusal(status: int, data: Any, body: Mapping[str, Any] | None = None) -> UpstreamRefused:
    """llama-server's error as clients get it; `body` is the request that it refuses."""
    found = data.get("error") if isinstance(data, dict) else None
    error: Mapping[str, Any] = found if isinstance(found, dict) else {}
    message = str(error.get("message") or "the worker refused the request")
    if found := _TEMPLATE.search(message):
        status, message = 400, f"the model's chat template refuses this conversation: {found[1]}"
    if error.get("type") == TOO_LONG:
        n_prompt, n_ctx = int(error.get("n_prompt_tokens", 0)), int(error.get("n_ctx", 0))
        problem = too_long(n_prompt, n_ctx, **_about(body or {}))
    elif counts := _TOO_LARGE.match(message):  # of a text to embed or to rank
        problem = too_long(int(counts[1]), int(counts[2]), what="the input", field="input", remedy="shorten it")
    else:
        if status == 500 and not any(fault in message for fault in _FAULTS):
            status = 400  # llama-server says 500 where it cannot make a prompt, a grammar or a template of a request
        code = str(error.get("type") or "worker-failed")
        if code in ("server_error", "invalid_request_error"):
            code = "bad-request"
        # llama-server repeats what it cannot parse: one line of bounded length is enough.
        problem = UpstreamRefused(status if status in (400, 404) else 500, " ".join(message.split())[:500], code=code)
    problem.error = error
    return problem


# What llama-server says, with status 500, of faults that are its own.
_FAULTS = ("got exception", "ompute error", "failed to", "context shift", "worker refused")
# A template that fails while it runs: with an error of its own, or one of the engine about it.
_TEMPLATE = re.compile(r"While executing \w+ at line .*\bError: (?:Jinja Exception: )?(.+)", re.DOTALL)
_TOO_LARGE = re.compile(r"input \((\d+) tokens\) is too large to process.*batch size: (\d+)\)", re.DOTALL)


def _about(body: Mapping[str, Any]) -> dict[str, str]:
    """The field of a request that is too long, and what helps."""
    n_tools = len(body.get("tools") or ())
    parts = f" (it has {n_tools} tools)" if n_tools else ""
    remedy = (
        f'shorten it{parts}, send "truncate": true to drop its oldest part, '
        "or start the server with --truncate or a larger --ctx-size"
    )
    return {"field": "prompt" if "prompt" in body else "messages", "remedy": remedy}


def too_long(n_prompt: int, n_ctx: int, *, field: str, remedy: str, what: str = "the prompt") -> UpstreamRefused:
    """A prompt that does not fit into the context."""
    message = exceeds_context(what, n_prompt, n_ctx, remedy)
    facts = {"n_prompt_tokens": n_prompt, "n_ctx": n_ctx}
    return UpstreamRefused(400, message, code=CONTEXT_EXCEEDED, field=field, **facts)


class Upstream:
    """A worker behind its socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False
        # Why the worker ended, where that is known.
        self.explain: Callable[[], EdgellmError | None] = lambda: None

    def _open(self) -> aiohttp.ClientSession:
        if self._is_closed:  # nobody would close another session
            raise ChildFailed("the worker was stopped")
        if self._session is None:
            # A connection a request: the worker closes idle ones when it likes, and opening one costs next to nothing.
            connector = aiohttp.UnixConnector(str(self._socket), limit=0, force_close=True)
            timeout = aiohttp.ClientTimeout(total=None)  # a slow CPU may take an hour over a long answer
            self._session = aiohttp.ClientSession("http://worker", connector=connector, timeout=timeout)
        return self._session

    async def close(self) -> None:
        """Close all connections for good; what is under way ends."""
        self._is_closed = True
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
        with self._failures():
            async with self._open().get(path) as response:
                return await response.json(content_type=None)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON of a POST.

        Raises:
            UpstreamRefused: the worker's answer is an error.
            ChildFailed: the worker is gone.
        """
        with self._failures():
            async with self._open().post(path, data=encoded(body), headers=JSON) as response:
                return _checked(response.status, await response.read(), body)

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, body: Mapping[str, Any], before_wait: BeforeWait
    ) -> AsyncIterator[AsyncIterator[Chunk]]:
        """The chunks of a POST; raises as `post` does. `before_wait` is awaited when no more have arrived."""
        with self._failures():
            response = await self._open().post(path, data=encoded(body), headers=JSON)
            try:
                if response.status != 200:
                    _checked(response.status, await response.read(), body)
                yield _chunks(response.content, before_wait, self._failures)
            finally:
                response.close()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn the failures of a connection into `ChildFailed`, or into what is known of the reason."""
        try:
            yield
        except (aiohttp.ClientError, ConnectionError) as error:
            if known := self.explain():
                raise known from error
            raise ChildFailed("the worker ended while it answered", why=str(error) or type(error).__name__) from error


JSON = {"Content-Type": "application/json"}


def _checked(status: int, data: bytes, body: Mapping[str, Any]) -> Any:
    try:
        decoded = json.loads(data)
    except ValueError:
        decoded = None
    if status != 200 or decoded is None:
        raise refusal(status if status != 200 else 502, decoded, body)
    return decoded


async def _chunks(
    content: aiohttp.StreamReader, before_wait: BeforeWait, failures: Callable[[], Any]
) -> AsyncIterator[Chunk]:
    pending = b""
    with failures():
        async for chunk in content.iter_any():
            *blocks, pending = (pending + chunk).split(b"\n\n")
            for block in blocks:
                if event := _chunk(block):
                    yield event
            if len(pending) > MOST_EVENT:
                raise ChildFailed("the worker's answer has no end")
            await before_wait()


def _chunk(block: bytes) -> Chunk | None:
    data = b""
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            data = line[5:].strip()
    if not data or data == DONE:  # a comment that keeps the connection alive, or the end
        return None
    decoded = from_json(data)
    return None if decoded is None else Chunk(decoded, block)  # several prompts begin with null
