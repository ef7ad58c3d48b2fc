"""Which scoring processes live: one for each model that is asked for, started on first use, ended when idle.

async with scoring.lease(model) as worker:
    await worker.tokenize("Hello", bos=False)
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from edgellm.errors import DoesNotFit
from edgellm.serve.http.current import current
from edgellm.serve.http.problems import RETRY_SECONDS, Problem
from edgellm.serve.options import ServeOptions
from edgellm.serve.scoring.client import Done, ScoredPart, ScoreRequest, ScoringWorker
from edgellm.serve.scoring.scorer import ScoringOptions
from edgellm.serve.workers.catalog import ServedModel
from edgellm.serve.workers.pool import LOOK_SECONDS, Pool


@dataclass(slots=True)
class Scoring:
    """A model's process, how many requests it has, and when it had its last."""

    worker: ScoringWorker | None = None
    in_flight: int = 0
    last_used: float = 0.0
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)


class ScoringPool:
    """The scoring processes of a server, beside the workers of `pool`; each makes room for the other."""

    def __init__(self, pool: Pool, options: ServeOptions, logs: Path, *, n_threads: int) -> None:
        self._pool, self._options, self._logs, self._n_threads = pool, options, logs, n_threads
        self._states: dict[str, Scoring] = {}
        pool.release = self.release

    def state(self, model: ServedModel) -> Scoring:
        """A model's state, whether it was ever asked to score or not."""
        return self._states.get(model.name) or Scoring()

    @contextlib.asynccontextmanager
    async def lease(self, model: ServedModel) -> AsyncIterator[ScoringWorker]:
        """The process of a model, for one request; one that has died is started again.

        Raises:
            Problem: too many wait (429).
            EdgellmError: it cannot be started.
        """
        current().model = model.name
        if model.adapters:
            raise Problem(400, f"{model.name} has adapters, with which texts are not scored", code="adapters")
        if self._pool.crew is not None:
            raise Problem(400, f"{model.name} is on several machines, where texts are not scored", code="on-workers")
        state = self._states.setdefault(model.name, Scoring())
        if state.in_flight > self._options.max_queue:
            message = f"{state.in_flight} requests to score with {model.name} are waiting already"
            raise Problem(429, message, code="queue-full", retry_after=RETRY_SECONDS)
        state.in_flight += 1
        try:
            async with state.starting:
                if state.worker is None or not state.worker.alive:
                    await self._end(state)
                    state.worker = await self._start(model)
                worker = state.worker
            yield worker
        finally:
            state.in_flight -= 1
            state.last_used = time.monotonic()

    async def score(self, worker: ScoringWorker, request: ScoreRequest) -> AsyncGenerator[ScoredPart | Done, None]:
        """The answer to a request; models with nothing to do are unloaded if the weights find no room."""
        while True:
            begun = False
            try:
                async with contextlib.aclosing(worker.score(request)) as answers:
                    async for answer in answers:
                        begun = True
                        yield answer
                return
            except DoesNotFit:
                if begun or not await self._pool.unload_idle():
                    raise

    async def run(self) -> None:
        """Stop idle processes, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            keep = self._options.idle_seconds
            for state in self._idle:
                if keep is not None and time.monotonic() - state.last_used >= keep:
                    await self._end(state)

    async def release(self) -> bool:
        """End the process that was used least recently and has nothing to do; tells whether there was one."""
        idle = self._idle
        if idle:
            await self._end(min(idle, key=lambda state: state.last_used))
        return bool(idle)

    async def stop(self) -> None:
        """End all."""
        await asyncio.gather(*map(self._end, self._states.values()))

    @property
    def _idle(self) -> list[Scoring]:
        return [state for state in self._states.values() if state.worker is not None and state.in_flight == 0]

    async def _start(self, model: ServedModel) -> ScoringWorker:
        if sum(state.worker is not None for state in self._states.values()) >= self._options.max_loaded:
            await self.release()
        options = self._options
        how = ScoringOptions(
            self._pool.wanted(model).n_ctx, self._n_threads, options.kv_type, options.max_memory, options.force
        )
        worker = ScoringWorker(model.path, how, log=self._logs / f"{model.file_name}.scoring.log")
        await worker.start()
        return worker

    async def _end(self, state: Scoring) -> None:
        worker, state.worker = state.worker, None
        if worker is not None:
            await worker.stop()
