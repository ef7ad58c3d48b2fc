"""The web application: every endpoint, behind the guards.

app = application(service)
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edgellm.errors import EdgellmError
from edgellm.serve.http.accounting import Accounting
from edgellm.serve.http.api import api_of
from edgellm.serve.http.current import Handled
from edgellm.serve.http.guards import Guards
from edgellm.serve.http.openapi import document
from edgellm.serve.http.problems import Problem, problem_of, uncached
from edgellm.serve.options import ServeOptions
from edgellm.serve.page import chats, home
from edgellm.serve.protocols import APIS
from edgellm.serve.service import Service, service_of
from edgellm.serve.watch import prometheus, status
from edgellm.suggest import did_you_mean


async def health(request: Request) -> Response:
    """GET /health: whether the server accepts requests."""
    service = service_of(request)
    return JSONResponse({"status": "ok", "loaded": [state.model.name for state in service.pool.loaded]})


async def description(request: Request) -> Response:
    """GET /openapi.json: this description."""
    return JSONResponse(document(ROUTES, APIS))


ROUTES = [
    Route("/health", health, methods=["GET"]),
    Route("/openapi.json", description, methods=["GET"]),
    *home.ROUTES,
    *chats.ROUTES,
    *status.ROUTES,
    *prometheus.ROUTES,
    *APIS.routes,
]


def application(
    service: Service,
    lifespan: contextlib.AbstractAsyncContextManager[None] | None = None,
    on_request: Callable[[Handled], None] | None = None,
) -> ASGIApp:
    """The application of a service; `lifespan` is entered before the first request and left after the last.

    `on_request` is called after each request.
    """

    observers = [service.metrics.request, *([on_request] if on_request else [])]
    return guarded(ROUTES, service, service.options, lifespan, observers)


def guarded(
    routes: Sequence[Route],
    service: object,
    options: ServeOptions,
    lifespan: contextlib.AbstractAsyncContextManager[None] | None,
    observers: Sequence[Callable[[Handled], None]],
) -> ASGIApp:
    """An application of some routes behind the guards, with errors in the form of each protocol."""

    @contextlib.asynccontextmanager
    async def living(_: Starlette) -> AsyncIterator[None]:
        async with lifespan or contextlib.nullcontext():
            yield

    app = Starlette(
        routes=routes,
        exception_handlers={Problem: _problem, EdgellmError: _problem, HTTPException: _http},
        lifespan=living,
    )
    app.state.service = service
    return Accounting(Guards(app, options, APIS), routes, observers)


async def _problem(request: Request, error: Exception) -> Response:
    problem = error if isinstance(error, Problem) else problem_of(error)  # type: ignore[arg-type]
    return JSONResponse(api_of(request.scope).error(problem), problem.status, uncached(problem.headers))


async def _http(request: Request, error: Exception) -> Response:
    """No such path, or another method."""
    path = request.url.path
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 404:
        guess = did_you_mean(path, sorted({route.path for route in request.app.routes}))
        message = f"there is nothing at {path[:200]}" + (f"; did you mean {guess}?" if guess else "")
        problem = Problem(404, message, code="not-found")
    else:
        problem = Problem(error.status_code, error.detail, code="method-not-allowed")
    return JSONResponse(api_of(request.scope).error(problem), problem.status, uncached(error.headers or {}))
