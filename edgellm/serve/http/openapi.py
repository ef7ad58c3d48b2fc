"""The OpenAPI description of a server, made from its routes and the models of their requests.

@takes(ChatRequest, streams=True)
async def chat(request): \"\"\"POST /v1/chat/completions: ...\"\"\"

document(routes, apis)

A route needs nothing else: its first docstring line is its summary, and its protocol gives the shape of its errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic.json_schema import models_json_schema
from starlette.routing import Route

from edgellm.serve.http.api import Api, Apis
from edgellm.serve.http.problems import Problem
from edgellm.serve.http.response import EVENTS, LINES
from edgellm.version import __version__
from edgellm.wire.body import Body

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
JSON, FORM = "application/json", "multipart/form-data"
_REF = "#/components/schemas/{model}"
_ERRORS = {
    "400": "The request is wrong; the message names the field.",
    "401": "A key is needed.",
    "403": "This host or origin may not use the server.",
    "404": "There is no such model, or nothing at this path.",
    "408": "The body did not arrive in time.",
    "409": "The chat has changed meanwhile.",
    "413": "The body is too large.",
    "422": "The model cannot be loaded; the message has the reason.",
    "429": "Too many requests wait; Retry-After says when to come again.",
    "503": "The model is being restarted, or has no room yet; Retry-After says when to come again.",
}


def takes(
    body: type[Body], *, streams: bool = False, lines: bool = False, form: bool = False
) -> Callable[[Endpoint], Endpoint]:
    """Declare the request of an endpoint, and whether its answer may be server-sent events or lines of JSON.

    With `form` the request is no JSON, but a form with a file.
    """

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.takes = body  # type: ignore[attr-defined]
        endpoint.form = FORM if form else JSON  # type: ignore[attr-defined]
        endpoint.streams = [EVENTS] * streams + [LINES] * lines  # type: ignore[attr-defined]
        return endpoint

    return mark


def gives(*media_types: str) -> Callable[[Endpoint], Endpoint]:
    """Declare that an endpoint does not answer with JSON."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.gives = media_types  # type: ignore[attr-defined]
        return endpoint

    return mark


def document(routes: Iterable[Route], apis: Apis) -> dict[str, Any]:
    """The description, as JSON."""
    routes = list(routes)
    bodies = {body for route in routes if (body := getattr(route.endpoint, "takes", None))}
    ordered = sorted(bodies, key=lambda body: (body.__module__, body.__name__))
    named, schemas = models_json_schema([(body, "validation") for body in ordered], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operations = paths.setdefault(_template(route.path), {})
        for method in sorted((route.methods or set()) - {"HEAD"}):
            operations[method.lower()] = _operation(route, method, named, apis)
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


def _operation(route: Route, method: str, named: Mapping[Any, dict[str, Any]], apis: Apis) -> dict[str, Any]:
    endpoint = route.endpoint
    body: type[Body] | None = getattr(endpoint, "takes", None)
    first = (endpoint.__doc__ or route.path).strip().splitlines()[0]
    summary = re.sub(r"^[A-Z, ]+ /\S*?(: |\.$|$)", "", first) or first
    name = re.sub(r"\W+", "_", f"{method.lower()}{route.path}").strip("_")
    operation: dict[str, Any] = {"summary": summary, "operationId": name, "responses": _responses(route, apis)}
    if route.param_convertors:
        operation["parameters"] = [
            {"name": param, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for param in route.param_convertors
        ]
    if body is not None:
        schema = named[body, "validation"]  # pydantic qualifies two models of the same name
        operation["requestBody"] = {"required": True, "content": {getattr(endpoint, "form", JSON): {"schema": schema}}}
    return operation


def _responses(route: Route, apis: Apis) -> dict[str, Any]:
    endpoint = route.endpoint
    text = [*getattr(endpoint, "gives", ()), *getattr(endpoint, "streams", ())]
    content: dict[str, Any] = {media_type: {} for media_type in text}
    if not hasattr(endpoint, "gives"):
        content["application/json"] = {"schema": {"type": "object"}}
    error = {"application/json": {"schema": _error_schema(apis.of(route.path))}}
    errors = {status: {"description": text, "content": error} for status, text in _ERRORS.items()}
    return {"200": {"description": "The answer.", "content": content}, **errors}


def _error_schema(api: Api) -> dict[str, Any]:
    """The shape of a protocol's errors, read off a real one."""
    return _schema_of(api.error(Problem(400, "", code="")))


def _schema_of(example: Any) -> dict[str, Any]:
    if isinstance(example, dict):
        properties = {name: _schema_of(value) for name, value in example.items()}
        return {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "string"} if isinstance(example, str) else {"type": ["string", "null"]}


def _template(path: str) -> str:
    """`/v1/models/{name:path}` without Starlette's convertor."""
    return re.sub(r"{(\w+):\w+}", r"{\1}", path)
