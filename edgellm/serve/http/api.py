"""A protocol as the core of the server sees it: its routes, the paths that are its own, and the form of its errors.

API = Api("anthropic", ROUTES, ("/v1/messages",), error=message_error, error_event=message_error_event)
apis.of("/v1/messages/count_tokens") is API

The core never looks at a path itself: it asks the protocol that owns the path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.routing import Route
from starlette.types import Scope

from edgellm.serve.http.problems import Problem

SCOPE_KEY = "edgellm.api"


@dataclass(frozen=True, slots=True)
class Api:
    """`error` is the JSON of an error, `error_event` the same as the last event of a stream that has begun.

    `prefixes` are the paths that are its own; of several protocols the one with the longest prefix owns a path.
    The bodies of POSTs to `uploads` go on to their endpoints as they arrive.
    """

    name: str
    routes: Sequence[Route]
    prefixes: tuple[str, ...]
    error: Callable[[Problem], dict[str, Any]]
    error_event: Callable[[Problem], bytes]
    uploads: frozenset[str] = frozenset()


class Apis:
    """All protocols of a server; one of them owns `/`, and with it every path that no other one owns."""

    def __init__(self, apis: Iterable[Api]) -> None:
        self._apis = tuple(apis)
        owners = [(prefix, api) for api in self._apis for prefix in api.prefixes]
        self._owners = sorted(owners, key=lambda pair: -len(pair[0]))

    def __iter__(self) -> Iterator[Api]:
        return iter(self._apis)

    @property
    def routes(self) -> list[Route]:
        """The routes of all protocols."""
        return [route for api in self._apis for route in api.routes]

    def of(self, path: str) -> Api:
        """The protocol that owns a path."""
        return next(api for prefix, api in self._owners if path.startswith(prefix))


def api_of(scope: Scope) -> Api:
    """The protocol that a request belongs to, as the guards have noted it."""
    api: Api = scope[SCOPE_KEY]
    return api
