"""The web application of a front: the endpoints of all protocols, passed on, behind the same guards as a server's.

app = fleet_application(service, lifespan)
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edgellm.serve.app import guarded
from edgellm.serve.http.current import Handled
from edgellm.serve.http.openapi import document, gives
from edgellm.serve.http.problems import Problem
from edgellm.serve.protocols import APIS
from edgellm.serve.upstreams.fleet import Fleet
from edgellm.serve.upstreams.forward import forward
from edgellm.serve.upstreams.link import Lost
from edgellm.serve.upstreams.lists import LISTS, merged
from edgellm.serve.upstreams.member import Member
from edgellm.serve.upstreams.service import FleetService, fleet_service_of
from edgellm.serve.upstreams.status import FleetStatus, fleet_status
from edgellm.serve.upstreams.sums import family
from edgellm.serve.watch.prometheus import FORMAT

# What is kept on one server cannot be asked of all of them.
KEPT = ("/v1/files", "/v1/vector_stores")
Endpoint = Callable[[Request], Awaitable[Response]]


async def health(request: Request) -> Response:
    """GET /health: whether any upstream answers."""
    up = fleet_service_of(request).fleet.up
    loaded = dict.fromkeys(name for member in up for name in member.snapshot.models)
    return JSONResponse({"status": "ok" if up else "no upstream answers", "models": list(loaded)}, 200 if up else 503)


@gives("text/plain")
async def home(request: Request) -> Response:
    """GET /: the line that Ollama's clients look for; a front has no page."""
    return PlainTextResponse("Ollama is running")


async def status(request: Request) -> Response:
    """GET /status.json."""
    return JSONResponse(asdict(fleet_status(fleet_service_of(request))), headers={"Cache-Control": "no-store"})


@gives("text/plain")
async def metrics(request: Request) -> Response:
    """GET /metrics: those of all upstreams added up, and the front's own."""
    service = fleet_service_of(request)
    await asyncio.gather(*(_note(service, member) for member in service.fleet.members))
    own = "".join(f"{line}\n" for line in _own_metrics(service, fleet_status(service)))
    return Response(service.sums.text() + own, media_type=FORMAT)


async def description(request: Request) -> Response:
    """GET /openapi.json: this description."""
    return JSONResponse(document(ROUTES, APIS))


async def _note(service: FleetService, member: Member) -> None:
    try:
        if not member.is_up:  # it may even be this front
            raise Lost(member.problem)
        service.sums.note(member.url, (await member.link.get("/metrics")).decode("utf-8", "replace"))
    except Lost:
        service.sums.away(member.url)


def _own_metrics(service: FleetService, found: FleetStatus) -> Iterator[str]:
    """The families of the front itself."""
    requests = [
        (f'{{endpoint="{endpoint}",status="{code}"}}', count) for (endpoint, code), count in _requests(service).items()
    ]
    yield from family("upstreams_requests_total", "counter", "Requests to the front that are over.", requests)
    yield from family(
        "upstreams_retries_total", "counter", "Requests that went to another server.", [("", found.retries)]
    )
    upstreams = found.upstreams
    for name, kind, help_text, value in (
        ("up", "gauge", "Whether it answers.", lambda each: each.problem is None),
        ("in_flight", "gauge", "The front's requests there.", lambda each: each.in_flight),
        ("answered_total", "counter", "Answers of it.", lambda each: each.answered),
        ("cache_hits_total", "counter", "Those whose beginning it had read before.", lambda each: each.cache_hits),
        ("lost_total", "counter", "Requests that it did not finish.", lambda each: each.lost),
        ("refused_total", "counter", "Requests that it had no room for.", lambda each: each.refused),
    ):
        samples = [(f'{{upstream="{each.url}"}}', float(value(each))) for each in upstreams]
        yield from family(f"upstream_{name}", kind, help_text, samples)


def _requests(service: FleetService) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for (endpoint, _, code), count in sorted(service.metrics.requests.items()):
        counts[endpoint, code] = counts.get((endpoint, code), 0) + count
    return counts


def _endpoint(route: Route) -> Endpoint:
    """The front's endpoint for one of a server's: with its description, without its work."""

    async def pass_on(request: Request) -> Response:
        fleet: Fleet = fleet_service_of(request).fleet
        if request.url.path.startswith(KEPT):
            message = "files and vector stores are kept on one server: ask that server"
            raise Problem(404, message, code="not-here")
        if request.method == "GET" and request.url.path in LISTS:
            if not fleet.up:
                raise fleet.nobody_answers()
            return JSONResponse(await merged(fleet, request.url.path))
        return await forward(request, fleet, request.path_params.get("name"))

    endpoint: Endpoint = functools.wraps(route.endpoint)(pass_on)
    return endpoint


ROUTES = [
    Route("/", home, methods=["GET"]),
    Route("/health", health, methods=["GET"]),
    Route("/openapi.json", description, methods=["GET"]),
    Route("/status.json", status, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
    *(Route(route.path, _endpoint(route), methods=list(route.methods or ())) for route in APIS.routes),
]


def fleet_application(
    service: FleetService,
    lifespan: contextlib.AbstractAsyncContextManager[None] | None = None,
    on_request: Callable[[Handled], None] | None = None,
) -> ASGIApp:
    """The application of a front; the arguments are those of a server's."""
    observers = [service.metrics.request, *([on_request] if on_request else [])]
    return guarded(ROUTES, service, service.options, lifespan, observers)
