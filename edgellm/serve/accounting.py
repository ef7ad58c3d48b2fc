"""Every request counted, with its endpoint, model and status, and told to whoever wants a line for each.

app = Accounting(app, routes, metrics, on_request=print)

It stands around everything else, so that what the guards refuse is counted too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgellm.serve.current import Handled, begin
from edgellm.serve.metrics import Metrics

# A path that anybody may invent must not become a label of its own.
OTHER = "other"


class Accounting:
    """An ASGI application around another."""

    def __init__(
        self,
        app: ASGIApp,
        routes: Iterable[Route],
        metrics: Metrics,
        on_request: Callable[[Handled], None] | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._on_request = on_request
        self._paths = {route.path for route in routes}
        self._of_endpoint = {route.endpoint: route.path for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when it is over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        handled = Handled(scope["method"], scope["path"])
        begin(handled)
        start = time.perf_counter()

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                handled.status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            handled.seconds = time.perf_counter() - start
            handled.endpoint = self._endpoint(scope)
            self._metrics.request(handled)
            if self._on_request is not None:
                self._on_request(handled)

    def _endpoint(self, scope: Scope) -> str:
        path, endpoint = scope["path"], scope.get("endpoint")
        if path in self._paths:
            return str(path)
        return OTHER if endpoint is None else self._of_endpoint.get(endpoint, OTHER)
