"""Counts every request, with its endpoint, model and status, and reports it to the functions that want to know.

app = Accounting(app, routes, [metrics.request, print])

It wraps everything else, so that what the guards refuse is counted too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgellm.serve.http.current import Handled, begin

# A path that a client invents must not become a label of its own.
OTHER = "other"


def _refuses_stored(scope: Scope) -> bool:
    """Whether the client wants no stored answer: Cache-Control, as RFC 9111 has it."""
    given = b",".join(value for name, value in scope["headers"] if name == b"cache-control").lower()
    return b"no-cache" in given or b"no-store" in given


class Accounting:
    """An ASGI application around another; `observers` are called with each request when it is over."""

    def __init__(self, app: ASGIApp, routes: Iterable[Route], observers: Sequence[Callable[[Handled], None]]) -> None:
        self._app = app
        self._observers = observers
        routes = list(routes)
        self._paths = {route.path for route in routes}
        self._of_endpoint = {route.endpoint: route.path for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        handled = Handled(scope["method"], scope["path"], no_cache=_refuses_stored(scope))
        begin(handled)
        start = time.perf_counter()

        async def note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                handled.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            handled.seconds = time.perf_counter() - start
            handled.endpoint = self._endpoint(scope)
            for observe in self._observers:
                observe(handled)

    def _endpoint(self, scope: Scope) -> str:
        path, endpoint = scope["path"], scope.get("endpoint")
        if path in self._paths:
            return str(path)
        return OTHER if endpoint is None else self._of_endpoint.get(endpoint, OTHER)
