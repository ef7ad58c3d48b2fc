"""The MCP server of edgellm over HTTP, for hosts on this machine or elsewhere: MCP's streamable HTTP at /mcp.

    serve_http(McpOffer(workspace()), address("8790"), on_ready=print)

The SDK speaks the protocol. In front of it stand the guards of `edgellm serve`: Host, origin, key, and the size and
time of a request.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from edgellm.errors import UsageError
from edgellm.mcp_server import McpOffer, McpServer, check_offer
from edgellm.serve.http import listener
from edgellm.serve.http.api import Api, Apis
from edgellm.serve.http.guards import Guards
from edgellm.serve.http.problems import Problem
from edgellm.serve.options import ServeOptions

PATH = "/mcp"
# Of a request, in bytes; sessions of hosts at once, and the seconds that an unused one is kept.
MOST_BODY, MOST_SESSIONS, IDLE_SECONDS = 4 << 20, 64, 1800.0
# Hosts keep a stream open for notices: the end of the server does not wait for it.
DRAIN_SECONDS = 2.0
_ADDRESS = re.compile(r"(?:(\[[0-9A-Fa-f:.]+\]|[^\[\]:/\s]+):)?([0-9]{1,5})")


def address(text: str, options: ServeOptions | None = None) -> ServeOptions:
    """Where to listen: PORT on this machine alone, or HOST:PORT; `options` has the keys and what else is allowed.

    Raises:
        UsageError: it is no address, or others could reach it without a key.
    """
    found = _ADDRESS.fullmatch(text.strip())
    if found is None or not 0 < int(found[2]) < 1 << 16:
        raise UsageError(f"--http {text!r:.80} is no address", why="PORT or HOST:PORT is needed", hint="--http 8790")
    host = (found[1] or "127.0.0.1").strip("[]")
    asked = replace(
        options or ServeOptions(), host=host, port=int(found[2]), max_body=MOST_BODY, drain_seconds=DRAIN_SECONDS
    )
    if not asked.is_local and not asked.api_keys:
        why = "anybody who reaches the port could use it, and so could any web page"
        raise UsageError(f"--http {text.strip()} needs a key", why=why, hint="--api-key KEY")
    return asked


def serve_http(offer: McpOffer, options: ServeOptions, *, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; `on_ready` is called with the URL for hosts.

    Raises:
        McpMissing: the SDK is not installed.
        CollectionNotFound: a collection that was named is not there.
        UsageError: the address is in use.
    """
    check_offer(offer)
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    host = McpServer(offer)
    # The guards have checked Host and origin; the SDK would check them against a list of its own.
    sessions = StreamableHTTPSessionManager(
        host.build(), max_request_body_size=MOST_BODY, max_sessions=MOST_SESSIONS, session_idle_timeout=IDLE_SECONDS
    )

    class Endpoint:
        """The SDK's handler, as Starlette wants one."""

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            """Hand a request to its session."""
            await sessions.handle_request(scope, receive, send)

    @asynccontextmanager
    async def living(_: Starlette) -> AsyncIterator[None]:
        async with sessions.run():
            try:
                yield
            finally:
                await host.close()

    app = Starlette(routes=[Route(PATH, endpoint=Endpoint())], lifespan=living)
    api = Api("mcp", (), ("/",), _error, _error_event)
    listener.run(
        Guards(app, options, Apis([api])), options, listener.bind(options), api,
        on_ready=lambda: on_ready(f"{options.url}{PATH}"), on_stop=host.stop_calls,
    )  # fmt: skip


def _error(problem: Problem) -> dict[str, Any]:
    """An error of JSON-RPC that belongs to no request."""
    error = {"code": -32600, "message": problem.message, "data": {"code": problem.code, **problem.facts}}
    return {"jsonrpc": "2.0", "id": None, "error": error}


def _error_event(problem: Problem) -> bytes:
    """Streams are the SDK's, which ends them itself."""
    raise problem
