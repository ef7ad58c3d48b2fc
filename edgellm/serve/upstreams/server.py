"""A whole front: from options and addresses to answered requests, until it is stopped.

serve_upstreams(options, urls, key, settings, on_ready=...)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence

from edgellm.serve.http import listener
from edgellm.serve.http.current import Handled
from edgellm.serve.logs import logging_to
from edgellm.serve.options import ServeOptions
from edgellm.serve.protocols import openai
from edgellm.serve.records import Record
from edgellm.serve.upstreams.app import fleet_application
from edgellm.serve.upstreams.fleet import Fleet
from edgellm.serve.upstreams.service import FleetService
from edgellm.settings import Settings

log = logging.getLogger("edgellm.serve")


def serve_upstreams(
    options: ServeOptions,
    urls: Sequence[str],
    key: str | None,
    settings: Settings,
    *,
    on_ready: Callable[[FleetService], None],
    on_request: Callable[[Handled], None] | None = None,
    listening: socket.socket | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C. `key` is sent to every upstream; `settings` tell where the log and the record go.
    `listening` is a socket to use instead of binding one.

    Raises:
        UsageError: the address cannot be listened on.
    """
    fleet = Fleet(urls, key=key)
    service = FleetService(options, fleet)
    record = Record.of(settings.servers, options, tuple(urls))

    def ready() -> None:
        record.write()
        log.info("serving at %s for %s", options.url, ", ".join(urls))
        on_ready(service)

    @contextlib.asynccontextmanager
    async def living() -> AsyncIterator[None]:
        await fleet.look()
        watching = asyncio.create_task(fleet.run())
        try:
            yield
        finally:
            watching.cancel()
            await fleet.close()
            record.remove()
            log.info("stopped")

    bound = listening or listener.bind(options)
    app = fleet_application(service, living(), on_request)
    secrets = {*options.api_keys, *([key] if key else [])}
    with logging_to(settings.logs / "serve.log", secrets=secrets):
        listener.run(app, options, bound, openai.API, on_ready=ready, on_stop=lambda: None)
