"""A whole server: from options and models to requests answered, until it is told to stop.

serve(options, catalog, program, logs, on_ready=...)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from edgellm.machine.cpu import usable_cores
from edgellm.models.memory import RunPlan
from edgellm.serve import http_server
from edgellm.serve.app import application
from edgellm.serve.catalog import Catalog, ServedModel
from edgellm.serve.metrics import Metrics
from edgellm.serve.options import ServeOptions
from edgellm.serve.pool import Pool
from edgellm.serve.scoring_pool import ScoringPool
from edgellm.serve.service import Service
from edgellm.serve.worker import Worker


def serve(
    options: ServeOptions,
    catalog: Catalog,
    program: Path,
    logs: Path,
    *,
    on_ready: Callable[[Service], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C. `program` is llama-server, `logs` the directory for what workers say.

    Raises:
        UsageError: the address cannot be listened on.
    """

    async def start(model: ServedModel, plan: RunPlan) -> Worker:
        return await Worker.start(program, model, plan, log=logs / f"{model.file_name}.log")

    n_threads = options.n_threads or usable_cores()
    pool = Pool(catalog, options, start, n_threads=n_threads)
    scoring = ScoringPool(pool, options, logs, n_threads=n_threads)
    service = Service(options, pool, scoring, Metrics())

    @contextlib.asynccontextmanager
    async def living() -> AsyncIterator[None]:
        unloading = asyncio.create_task(pool.run()), asyncio.create_task(scoring.run())
        try:
            yield
        finally:
            for task in unloading:
                task.cancel()
            await asyncio.gather(pool.stop(), scoring.stop())

    listener = http_server.bind(options)
    app = application(service, living())
    http_server.run(app, options, listener, on_ready=lambda: on_ready(service), on_stop=pool.close)
