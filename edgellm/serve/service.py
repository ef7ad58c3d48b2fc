"""What the endpoints work with.

service = Service(options, catalog, pool, metrics)
service.model("smollm2:latest")
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from edgellm.serve.answers import Answer, Protocol, answer
from edgellm.serve.catalog import Kind, ServedModel
from edgellm.serve.metrics import Metrics
from edgellm.serve.options import ServeOptions
from edgellm.serve.pool import Pool
from edgellm.serve.problems import Problem
from edgellm.serve.requests import Sampling
from edgellm.serve.scoring_pool import ScoringPool
from edgellm.serve.worker import Worker


@dataclass(frozen=True, slots=True)
class Service:
    """A server's parts; `started` is in seconds since 1970."""

    options: ServeOptions
    pool: Pool
    scoring: ScoringPool
    metrics: Metrics
    started: float = field(default_factory=time.time)

    def model(self, name: str | None, *kinds: Kind) -> ServedModel:
        """The model of that name; without a name the only one that can do it, or the first."""
        if name is not None:
            return self.pool.catalog.get(name)
        able = [model for model in self.pool.catalog if not kinds or model.kind in kinds]
        if not able:
            raise Problem(400, "no model here can do this; name one in model", code="missing-field", field="model")
        return able[0]

    @asynccontextmanager
    async def answering(
        self,
        worker: Worker,
        protocol: Protocol,
        body: dict[str, Any],
        asked: Sampling,
    ) -> AsyncIterator[Answer]:
        """An answer under way, counted; what the model's recipe recommends is added to what was asked."""
        guard = self.options.loop_guard if asked.loop_guard is None else asked.loop_guard
        whole = {"model": worker.model.name, **worker.model.sampling, **body}
        # Of several answers at once the worker can stop none alone.
        guarded = guard and whole.get("n", 1) == 1
        begin = time.perf_counter()
        async with answer(worker, protocol, whole, guard=guarded, max_seconds=asked.max_time) as events:
            with self.metrics.watching(worker.model.name, events.ending, begin):
                yield events


def service_of(request: Request) -> Service:
    """The service that a request is for."""
    service: Service = request.app.state.service
    return service
