"""Which models are loaded: on first use, as many as memory allows, and no longer than they are wanted.

async with pool.lease("smollm2") as worker:
    await worker.upstream.post(...)

A worker that dies is started again at once; who asks meanwhile is told to come again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from edgellm.errors import DoesNotFit, EdgellmError, EngineError
from edgellm.machine import memory
from edgellm.models.fit import choose_plan
from edgellm.models.memory import RunPlan, choose_context
from edgellm.serve.catalog import Catalog, Kind, ServedModel
from edgellm.serve.current import current
from edgellm.serve.options import ServeOptions
from edgellm.serve.problems import RETRY_SECONDS, Problem
from edgellm.serve.worker import Worker

Start = Callable[[ServedModel, RunPlan], Awaitable[Worker]]
LOOK_SECONDS = 1.0
# How often a worker is asked for a sign of life, by the end of an answer that there is not.
PULSE_SECONDS = 10.0
NO_ANSWER = "none"
# A worker that dies again and again is started less and less often.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
# How long a request waits until another model may be unloaded for its own.
PATIENCE_SECONDS = 30.0

log = logging.getLogger("edgellm.serve")


@dataclass(slots=True)
class Loaded:
    """A model's state: its worker, how many requests it has, and when it had its last."""

    model: ServedModel
    worker: Worker | None = None
    restarting: bool = False
    failures: int = 0
    in_flight: int = 0
    last_used: float = 0.0
    keep_seconds: float | None = None
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    watch: asyncio.Task[None] | None = None

    @property
    def idle_since(self) -> float | None:
        """When it had its last request, if it has none now."""
        return self.last_used if self.worker is not None and self.in_flight == 0 else None


class Pool:
    """The workers of a server. `start` makes one."""

    def __init__(
        self,
        catalog: Catalog,
        options: ServeOptions,
        start: Start,
        *,
        n_threads: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.catalog = catalog
        self.options = options
        self._start = start
        self._n_threads = n_threads
        self._clock = clock
        self._states: dict[str, Loaded] = {}
        self._loading = asyncio.Lock()  # one model after the other: each looks at what memory there is
        self._closed = False
        # Ends something else of this server that holds memory for nothing; tells whether there was any.
        self.release: Callable[[], Awaitable[bool]] | None = None
        self.n_restarts = 0

    @property
    def loaded(self) -> list[Loaded]:
        """Those that have a worker."""
        return [state for state in self._states.values() if state.worker is not None]

    def state(self, model: ServedModel) -> Loaded:
        """A model's state, whether it was ever asked for or not."""
        return self._states.get(model.name) or Loaded(model)

    def idle_seconds(self, state: Loaded) -> float | None:
        """How long nobody has asked a loaded model for anything; None while somebody does."""
        return None if state.idle_since is None else self._clock() - state.idle_since

    @property
    def n_in_flight(self) -> int:
        """Requests that are being answered or wait."""
        return sum(state.in_flight for state in self._states.values())

    def plan(self, model: ServedModel, *, room: memory.Room | None = None) -> RunPlan:
        """How a model is run here; `DoesNotFit` when it cannot be."""
        options = self.options
        return choose_plan(
            model.outline, room or memory.room(), n_ctx=self._asked_context(model), kv_type=options.kv_type,
            n_threads=self._n_threads, n_slots=options.n_slots, max_memory=options.max_memory, force=options.force,
        )  # fmt: skip

    def wanted(self, model: ServedModel) -> RunPlan:
        """How it would be run if memory were no question."""
        options = self.options
        n_ctx = choose_context(model.outline.n_ctx_train, self._asked_context(model))
        return RunPlan(n_ctx, options.n_slots, (options.kv_type or "F16").upper(), n_threads=self._n_threads)

    def _asked_context(self, model: ServedModel) -> int | None:
        n_ctx = self.options.n_ctx
        # Of several models, one may have been trained with less.
        return None if n_ctx is None else min(n_ctx, model.outline.n_ctx_train)

    @contextlib.asynccontextmanager
    async def lease(self, name: str, *kinds: Kind, keep_seconds: float | None = None) -> AsyncIterator[Worker]:
        """The worker of a model, for one request.

        `keep_seconds` is how long to keep it after this request, negative for ever, 0 not at all.

        Raises:
            ModelNotFound: no model of that name is served.
            Problem: it cannot do what is asked (400), too many wait (429), or it is being restarted (503).
            DoesNotFit, EngineError: it cannot be loaded.
        """
        model = self.catalog.get(name)
        current().model = model.name
        if kinds and model.kind not in kinds:
            raise wrong_kind(model, kinds)
        if self._closed:
            raise Problem(503, "the server is shutting down", code="shutting-down", retry_after=RETRY_SECONDS)
        state = self._states.setdefault(model.name, Loaded(model))
        if state.restarting or (state.worker is not None and not state.worker.is_alive):
            message = f"{model.name} is being started again"
            raise Problem(503, message, code="worker-restarting", retry_after=RETRY_SECONDS)
        if state.in_flight >= self.options.n_slots + self.options.max_queue:
            message = f"{state.in_flight} requests for {model.name} are waiting already"
            raise Problem(429, message, code="queue-full", retry_after=RETRY_SECONDS)
        state.in_flight += 1
        try:
            worker = state.worker or await self._load(state)
            if keep_seconds is not None:
                state.keep_seconds = keep_seconds
            yield worker
        finally:
            state.in_flight -= 1
            state.last_used = self._clock()
            if state.keep_seconds == 0 and state.in_flight == 0 and state.worker is not None:
                await self.unload(state)

    async def run(self) -> None:
        """Unload what nobody uses, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = self._clock()
            for state in self.loaded:
                keep = self.options.idle_seconds if state.keep_seconds is None else state.keep_seconds
                idle_since = state.idle_since
                if keep is not None and keep >= 0 and idle_since is not None and now - idle_since >= keep:
                    await self.unload(state)

    async def unload(self, state: Loaded) -> None:
        """End a model's worker."""
        worker, state.worker = state.worker, None
        state.keep_seconds = None
        if state.watch is not None:
            state.watch.cancel()
            state.watch = None
        if worker is not None:
            await worker.stop()
            log.info("unloaded %s", state.model.name)

    async def unload_idle(self) -> bool:
        """End the worker that was used least recently and has nothing to do; tells whether there was one."""
        idle = [state for state in self.loaded if state.in_flight == 0]
        if idle:
            await self.unload(min(idle, key=lambda state: state.last_used))
        return bool(idle)

    def close(self) -> None:
        """Take no more requests."""
        self._closed = True

    async def stop(self) -> None:
        """End all workers."""
        self.close()
        await asyncio.gather(*(self.unload(state) for state in self.loaded))

    async def _load(self, state: Loaded) -> Worker:
        async with state.starting:
            if state.worker is not None:
                return state.worker
            async with self._loading:
                plan = await self._make_room(state)
                state.worker = worker = await self._start(state.model, plan)
            state.last_used = self._clock()
            state.failures = 0
            told = (state.model.name, worker.load_seconds, plan.n_ctx, plan.n_slots, worker.pid)
            log.info("loaded %s in %.1f s: %d tokens for each of %d slots, process %d", *told)
            state.watch = asyncio.create_task(self._watch(state, worker))
            return worker

    async def _pulse(self, worker: Worker) -> None:
        """End a worker that takes no step any more: a grammar can keep it busy for ever, for all its clients."""
        patience = self.options.stall_seconds
        try:
            while True:
                await asyncio.sleep(min(PULSE_SECONDS, patience))
                await asyncio.wait_for(worker.end_answer(NO_ANSWER), patience)
        except asyncio.TimeoutError:
            log.error("the worker of %s took no step for %.0f s", worker.model.name, patience)
            worker.kill()
        except EngineError:
            pass  # it has ended

    async def _watch(self, state: Loaded, worker: Worker) -> None:
        """Start a worker again that ended by itself."""
        pulse = asyncio.create_task(self._pulse(worker))
        try:
            status = await worker.wait()
        finally:
            pulse.cancel()
        state.worker, state.watch = None, None
        log.error("the worker of %s ended with status %s; it is started again", state.model.name, status)
        state.restarting = True
        self.n_restarts += 1
        await worker.stop(grace=0)
        try:
            while not self._closed:
                try:
                    await self._load(state)
                    return
                except (EngineError, DoesNotFit) as error:
                    log.error("%s: %s", error.what, error.why)
                    state.failures += 1
                    if state.failures > 3:
                        return  # the next request tries again, and hears why it fails
                    await asyncio.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2**state.failures))
        finally:
            state.restarting = False

    async def _make_room(self, state: Loaded) -> RunPlan:
        """How to run it, once others have been unloaded that stand in its way and have nothing to do."""
        deadline = self._clock() + PATIENCE_SECONDS
        while True:
            problem: EdgellmError | None = None
            try:
                plan = self.plan(state.model)
                if len(self.loaded) < self.options.max_loaded:
                    return plan
            except DoesNotFit as error:
                problem = error
                if self.release is not None and await self.release():
                    continue
            if not self.loaded:
                raise problem or EngineError("no model may be loaded", why="--max-loaded is 0")
            if await self.unload_idle():
                continue
            if self._clock() > deadline:
                busy = ", ".join(other.model.name for other in self.loaded)
                message = f"there is no room for {state.model.name} while {busy} is in use"
                raise Problem(503, message, code="models-busy", retry_after=RETRY_SECONDS)
            await asyncio.sleep(0.1)


def wrong_kind(model: ServedModel, kinds: tuple[Kind, ...]) -> Problem:
    """What a client is told who asks a model for what it cannot do."""
    what = {
        Kind.EMBEDDING: "turns texts into vectors",
        Kind.COMPLETION: "continues text and does not chat",
        Kind.RERANK: "ranks texts by a query",
        Kind.CHAT: "writes text",
    }[model.kind]
    asked = " or ".join(kind.value for kind in kinds)
    return Problem(400, f"{model.name} {what}; this needs a model for {asked}", code="wrong-model", field="model")
