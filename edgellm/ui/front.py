"""`edgellm serve --upstreams`: a front over other servers, with what the terminal shows of it.

serve_front(options, ["http://box1:11435,http://box2:11435"], None, names, show, quiet=False)
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from edgellm.errors import UsageError
from edgellm.serve.http.current import Handled
from edgellm.serve.options import ServeOptions
from edgellm.serve.upstreams.addresses import refuse_self, upstream_urls
from edgellm.serve.upstreams.server import serve_upstreams
from edgellm.serve.upstreams.service import FleetService
from edgellm.serve.upstreams.status import FleetStatus, fleet_status
from edgellm.ui.console import note, printable, stderr
from edgellm.workspace import workspace

# Models of an upstream that the greeting lists.
MOST_SHOWN = 8


def refuse_with_upstreams(typed: Sequence[str]) -> None:
    """Refuse options that a server without models of its own cannot honour."""
    if typed:
        why = "the servers behind it have the models and their options"
        raise UsageError(f"{typed[0]} does not go with --upstreams", why=why, hint="leave one of the two out")


def serve_front(
    asked: ServeOptions,
    given: Sequence[str],
    key: str | None,
    names: list[str],
    show: Callable[[Callable[[Any], None]], object],
    *,
    quiet: bool,
    on_request: Callable[[Handled], None] | None,
    listening: socket.socket | None,
) -> None:
    """Serve for the upstreams that were typed, until SIGTERM or Ctrl-C.

    `names` gets the names of their models when the front is ready; then `show` is called with what greets people.

    Raises:
        UsageError: an upstream is no address, or this server itself.
    """
    urls = upstream_urls(given)
    refuse_self(urls, asked)
    if key is None and len(asked.api_keys) == 1:
        (key,) = asked.api_keys

    def ready(service: FleetService) -> None:
        found = fleet_status(service)
        names.extend(model.name for model in found.models)
        show(lambda _: None if quiet else _greet(found, asked))
        sys.stdout.flush()

    settings = workspace(offline=True).settings
    options = replace(asked, documents=(), chats=False)
    serve_upstreams(options, urls, key, settings, on_ready=ready, on_request=on_request, listening=listening)


def print_address(options: ServeOptions) -> None:
    """Print where a server is, and who can reach it."""
    reach = "only this machine can reach it" if options.is_local else f"reachable at {options.host}:{options.port}"
    lock = "with a key" if options.api_keys else "without a key"
    stderr().print(f"[bold]{options.url}[/]   {reach}, {lock}")


def _greet(found: FleetStatus, options: ServeOptions) -> None:
    """Print the address, and what each upstream has, or why it gets no requests."""
    print_address(options)
    for each in found.upstreams:
        note(printable(f"  {each.url}  {each.problem or ', '.join(each.models[:MOST_SHOWN]) or 'no models'}"))
    if all(each.problem for each in found.upstreams):
        note("none of them answers yet; requests get 503 until one does")
    note(f"OpenAI  {options.url}/v1    Ollama, Anthropic  {options.url}")
    note("next: edgellm connect CLIENT    edgellm ps    Ctrl-C stops")
