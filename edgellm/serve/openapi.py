"""The OpenAPI description of a server, made from its routes and the models of their requests.

@takes(ChatRequest, streams=True)
async def chat(request): \"\"\"POST /v1/chat/completions: ...\"\"\"

document(ROUTES)

A route needs nothing else: its first docstring line is its summary, and its errors have the shape of its protocol.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic.json_schema import models_json_schema
from starlette.routing import Route

from edgellm import __version__
from edgellm.serve.problems import Problem
from edgellm.serve.requests import Body
from edgellm.serve.responding import EVENTS, LINES

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
_REF = "#/components/schemas/{model}"
_ERRORS = {
    "400": "The request is wrong; the message names the field.",
    "401": "A key is needed.",
    "403": "This host or origin may not use the server.",
    "404": "There is no such model, or nothing at this path.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "429": "Too many requests wait; Retry-After says when to come again.",
    "503": "The model cannot be loaded now; Retry-After says when to come again.",
}


def takes(body: type[Body], *, streams: bool = False, lines: bool = False) -> Callable[[Endpoint], Endpoint]:
    """Say what an endpoint's request is, and whether its answer may be server-sent events, or lines of JSON."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.takes = body  # type: ignore[attr-defined]
        endpoint.streams = [EVENTS] * streams + [LINES] * lines  # type: ignore[attr-defined]
        return endpoint

    return mark


def gives(*media_types: str) -> Callable[[Endpoint], Endpoint]:
    """Say that an endpoint answers something else than JSON."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.gives = media_types  # type: ignore[attr-defined]
        return endpoint

    return mark


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The description, as JSON."""
    routes = list(routes)
    bodies = {body for route in routes if (body := getattr(route.endpoint, "takes", None))}
    ordered = sorted(bodies, key=lambda body: (body.__module__, body.__name__))
    named, schemas = models_json_schema([(body, "validation") for body in ordered], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operations = paths.setdefault(_template(route.path), {})
        for method in sorted((route.methods or set()) - {"HEAD"}):
            operations[method.lower()] = _operation(route, method, named)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "edgellm serve",
            "version": __version__,
            "description": "Local language models, by the APIs of OpenAI, Ollama and Anthropic.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas.get("$defs", {}),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(route: Route, method: str, named: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    endpoint = route.endpoint
    body: type[Body] | None = getattr(endpoint, "takes", None)
    first = (endpoint.__doc__ or route.path).strip().splitlines()[0]
    summary = re.sub(r"^[A-Z, ]+ /\S*?(: |\.$|$)", "", first) or first
    name = re.sub(r"\W+", "_", f"{method.lower()}{route.path}").strip("_")
    operation: dict[str, Any] = {"summary": summary, "operationId": name, "responses": _responses(route)}
    if route.param_convertors:
        operation["parameters"] = [
            {"name": param, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for param in route.param_convertors
        ]
    if body is not None:
        schema = named[body, "validation"]  # of two models of one name pydantic qualifies both
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _responses(route: Route) -> dict[str, Any]:
    endpoint = route.endpoint
    text = [*getattr(endpoint, "gives", ()), *getattr(endpoint, "streams", ())]
    content: dict[str, Any] = {media_type: {} for media_type in text}
    if not hasattr(endpoint, "gives"):
        content["application/json"] = {"schema": {"type": "object"}}
    error = {"application/json": {"schema": _error_schema(route.path)}}
    errors = {status: {"description": text, "content": error} for status, text in _ERRORS.items()}
    return {"200": {"description": "The answer.", "content": content}, **errors}


def _error_schema(path: str) -> dict[str, Any]:
    """The shape of an error in the protocol that a path belongs to, from a real one."""
    return _schema_of(Problem(400, "", code="").for_path(path))


def _schema_of(example: Any) -> dict[str, Any]:
    if isinstance(example, dict):
        properties = {name: _schema_of(value) for name, value in example.items()}
        return {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "string"} if isinstance(example, str) else {"type": ["string", "null"]}


def _template(path: str) -> str:
    """`/v1/models/{name:path}` without Starlette's convertor."""
    return re.sub(r"{(\w+):\w+}", r"{\1}", path)
