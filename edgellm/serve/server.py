"""A whole server: from options and models to requests answered, until it is told to stop.

serve(options, catalog, engine, settings, on_ready=...)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable

from edgellm.engine.installed import InstalledEngine
from edgellm.machine.cpu import usable_cores
from edgellm.models.memory import RunPlan
from edgellm.serve import http_server
from edgellm.serve.app import application
from edgellm.serve.catalog import Catalog, ServedModel
from edgellm.serve.current import Handled
from edgellm.serve.logs import logging_to
from edgellm.serve.metrics import Metrics
from edgellm.serve.options import ServeOptions
from edgellm.serve.pool import Pool
from edgellm.serve.running import Record
from edgellm.serve.scoring_pool import ScoringPool
from edgellm.serve.service import Service
from edgellm.serve.structures import Structures
from edgellm.serve.worker import Worker
from edgellm.settings import Settings

PROGRAM = "llama-server"

log = logging.getLogger("edgellm.serve")


def serve(
    options: ServeOptions,
    catalog: Catalog,
    engine: InstalledEngine,
    settings: Settings,
    *,
    on_ready: Callable[[Service], None],
    on_request: Callable[[Handled], None] | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C. `engine` has llama-server; `settings` tell where logs and the record go.

    Raises:
        UsageError: the address cannot be listened on.
    """

    async def start(model: ServedModel, plan: RunPlan) -> Worker:
        worker = await Worker.start(
            engine.programs / PROGRAM, model, plan, log=settings.logs / f"{model.file_name}.log"
        )
        await asyncio.to_thread(record.add_worker, worker.pid)
        return worker

    def ready() -> None:
        record.write()
        log.info("serving at %s: %s", options.url, ", ".join(record.server.models))
        on_ready(service)

    record = Record.of(settings.servers, options, tuple(model.name for model in catalog))
    n_threads = options.n_threads or usable_cores()
    pool = Pool(catalog, options, start, n_threads=n_threads)
    scoring = ScoringPool(pool, options, settings.logs, n_threads=n_threads)
    service = Service(options, pool, scoring, Structures(engine), Metrics())

    @contextlib.asynccontextmanager
    async def living() -> AsyncIterator[None]:
        unloading = asyncio.create_task(pool.run()), asyncio.create_task(scoring.run())
        try:
            yield
        finally:
            for task in unloading:
                task.cancel()
            await asyncio.gather(pool.stop(), scoring.stop())
            record.remove()
            log.info("stopped")

    listener = http_server.bind(options)
    app = application(service, living(), on_request)
    with logging_to(settings.logs / "serve.log", secrets=options.api_keys):
        http_server.run(app, options, listener, on_ready=ready, on_stop=pool.close)
