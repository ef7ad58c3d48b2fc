"""Decides which models are loaded: each on first use, as many as memory allows, until they are idle.

async with pool.lease("smollm2") as worker:
    await worker.upstream.post(...)

A worker that dies is restarted at once; requests that come meanwhile are asked to retry.
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
from edgellm.models.fit.memory import RunPlan
from edgellm.models.fit.tuned_plan import Tuning
from edgellm.models.fit.verdict import choose_plan, default_plan
from edgellm.serve.http.current import current
from edgellm.serve.http.problems import RETRY_SECONDS, Problem
from edgellm.serve.options import ServeOptions
from edgellm.serve.workers.catalog import Catalog, ModelKind, ServedModel
from edgellm.serve.workers.crew import Crew
from edgellm.serve.workers.worker import Worker

Start = Callable[[ServedModel, RunPlan], Awaitable[Worker]]
Keep = Callable[[Worker], Awaitable[None]]
LOOK_SECONDS = 1.0
# How often to ping a worker, by cancelling an answer id that does not exist.
PULSE_SECONDS = 10.0
NO_ANSWER = "none"
# How long a model is idle before its conversations are kept on disk, in seconds: nobody is kept waiting then.
KEEP_SECONDS = 20.0
# The pause before each restart of a worker that keeps dying, in seconds.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
# How long a request waits for another model to become idle, so that its own can be loaded.
PATIENCE_SECONDS = 30.0

log = logging.getLogger("edgellm.serve")


@dataclass(slots=True)
class Loaded:
    """The state of a model: its worker, its requests in flight, and when the last one ended."""

    model: ServedModel
    worker: Worker | None = None
    restarting: bool = False
    failures: int = 0
    in_flight: int = 0
    last_used: float = 0.0
    kept_at: float = 0.0
    keep_seconds: float | None = None
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    watch: asyncio.Task[None] | None = None

    @property
    def idle_since(self) -> float | None:
        """When its last request ended; None while it has requests, or is not loaded."""
        return self.last_used if self.worker is not None and self.in_flight == 0 else None


async def keep_nothing(worker: Worker) -> None:
    """The default of `Pool`: a worker's conversations end with it."""


class Pool:
    """The workers of a server; `start` starts one, `tuning` says how a model runs fastest.

    `keep` keeps the conversations of a worker on disk; it is called when one is idle, and before one is stopped.
    """

    def __init__(
        self,
        catalog: Catalog,
        options: ServeOptions,
        start: Start,
        *,
        n_threads: int,
        tuning: Callable[[ServedModel], Tuning | None] = lambda _: None,
        keep: Keep = keep_nothing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.catalog = catalog
        self.options = options
        self._start = start
        self._n_threads, self._tuning, self._keep = n_threads, tuning, keep
        self._clock = clock
        self._states: dict[str, Loaded] = {}
        self._plans: dict[str, RunPlan] = {}
        self._stopping: set[asyncio.Task[None]] = set()
        self._loading = asyncio.Lock()  # one model at a time: each looks at the memory that is free
        self._closed = False
        # Frees memory that this server holds elsewhere without need; returns whether there was any.
        self.release: Callable[[], Awaitable[bool]] | None = None
        self.n_restarts = 0
        # The other machines that hold layers of the model that writes text, if there are any.
        self.crew: Crew | None = None

    @property
    def loaded(self) -> list[Loaded]:
        """The models that have a worker."""
        return [state for state in self._states.values() if state.worker is not None]

    def state(self, model: ServedModel) -> Loaded:
        """The state of a model, even of one that was never requested."""
        return self._states.get(model.name) or Loaded(model)

    def idle_seconds(self, state: Loaded) -> float | None:
        """How long a loaded model has been idle; None while it has requests."""
        return None if state.idle_since is None else self._clock() - state.idle_since

    @property
    def n_in_flight(self) -> int:
        """Requests that are being answered, or wait."""
        return sum(state.in_flight for state in self._states.values())

    def plan(self, model: ServedModel, *, room: memory.Room | None = None) -> RunPlan:
        """The plan for a model, if there is memory for it now; raises `DoesNotFit`."""
        wanted = self.wanted(model, room=room)
        return self._choose(model, room, n_ctx=wanted.n_ctx, kv_type=wanted.kv_type)

    def wanted(self, model: ServedModel, *, room: memory.Room | None = None) -> RunPlan:
        """The plan for a model: context, slots and cache.

        It is chosen by the memory when it is first asked for, which is at the start of a server. After that it stays,
        because clients rely on the context that they were given.
        """
        if model.name not in self._plans:
            options = self.options
            asked, kind = self._asked_context(model), options.kv_type
            try:
                self._plans[model.name] = self._choose(model, room, n_ctx=asked, kv_type=kind)
            except DoesNotFit:  # until others make room
                return default_plan(
                    model.outline, room or memory.room(), n_ctx=asked, kv_type=kind, n_threads=self._n_threads,
                    n_slots=options.n_slots,
                )  # fmt: skip
        return self._plans[model.name]

    def expected(self, model: ServedModel) -> RunPlan:
        """The plan that a model runs with, or would be loaded with: what lists of models say."""
        worker = self.state(model).worker
        return self.wanted(model) if worker is None else worker.plan

    def _choose(
        self, model: ServedModel, room: memory.Room | None, *, n_ctx: int | None, kv_type: str | None
    ) -> RunPlan:
        options = self.options
        if self.crew is not None and model.writes:
            return self.crew.plan(
                model.outline, room or memory.room(), options, n_ctx=n_ctx, kv_type=kv_type, n_threads=self._n_threads
            )[0]
        return choose_plan(
            model.outline, room or memory.room(), n_ctx=n_ctx, kv_type=kv_type, n_threads=self._n_threads,
            n_slots=options.n_slots, max_memory=options.max_memory, force=options.force, tuning=self._tuning(model),
        )  # fmt: skip

    def _shrink(self, model: ServedModel) -> bool:
        """Choose a shorter context by the memory that there is now; returns whether it is shorter."""
        before = self._plans.pop(model.name, None)
        return before is not None and self.wanted(model).n_ctx < before.n_ctx

    def _asked_context(self, model: ServedModel) -> int | None:
        n_ctx = self.options.n_ctx
        # One of several models may have been trained with less.
        return None if n_ctx is None else min(n_ctx, model.outline.n_ctx_train)

    @contextlib.asynccontextmanager
    async def lease(self, name: str, *kinds: ModelKind, keep_seconds: float | None = None) -> AsyncIterator[Worker]:
        """The worker of a model, for one request.

        `keep_seconds` is how long to keep the model loaded after this request: negative is for ever, 0 unloads it.

        Raises:
            ModelNotFound: no model of that name is served.
            Problem: it cannot do what is asked (400), too many wait (429), or it is being restarted (503).
            DoesNotFit, CorruptFile, ModelNotFound, EngineError: it cannot be loaded.
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
        """Unload idle models, and keep what is in them before, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = self._clock()
            for state in self.loaded:
                keep = self.options.idle_seconds if state.keep_seconds is None else state.keep_seconds
                idle_since = state.idle_since
                if keep is not None and keep >= 0 and idle_since is not None and now - idle_since >= keep:
                    await self.unload(state)
                elif state.worker is not None and self._is_to_keep(state, now):
                    state.kept_at = now
                    await self._keep(state.worker)

    @staticmethod
    def _is_to_keep(state: Loaded, now: float) -> bool:
        """Whether a model is idle, and has answered since its conversations were kept."""
        idle_since = state.idle_since
        return idle_since is not None and now - idle_since >= KEEP_SECONDS and state.kept_at < idle_since

    async def unload(self, state: Loaded) -> None:
        """Stop the worker of a model."""
        worker, state.worker = state.worker, None
        state.keep_seconds = None
        if state.watch is not None:
            state.watch.cancel()
            state.watch = None
        if worker is not None:
            stopping = asyncio.create_task(self._end(worker, is_kept=state.kept_at >= state.last_used))
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)
            await asyncio.shield(stopping)  # a caller that is cancelled leaves no worker behind
            log.info("unloaded %s", state.model.name)

    async def _end(self, worker: Worker, *, is_kept: bool) -> None:
        """Stop a worker; what is in its slots is kept before."""
        if not is_kept:
            await self._keep(worker)
        await worker.stop()

    async def unload_idle(self) -> bool:
        """Stop the idle worker that was used least recently; returns whether there was one."""
        idle = [state for state in self.loaded if state.in_flight == 0]
        if idle:
            await self.unload(min(idle, key=lambda state: state.last_used))
        return bool(idle)

    def close(self) -> None:
        """Refuse new requests from here on."""
        self._closed = True

    async def stop(self) -> None:
        """Stop all workers, also those that are being restarted."""
        self.close()
        restarts = [state.watch for state in self._states.values() if state.watch and state.worker is None]
        for restart in restarts:
            restart.cancel()
        await asyncio.gather(*restarts, return_exceptions=True)
        await asyncio.gather(*(self.unload(state) for state in self.loaded))
        await asyncio.gather(*self._stopping)

    async def _load(self, state: Loaded) -> Worker:
        async with state.starting:
            if state.worker is not None:
                return state.worker
            async with self._loading:
                if self.crew is not None and state.model.writes:
                    await asyncio.to_thread(self.crew.look)
                plan = await self._make_room(state)
                state.worker = worker = await self._start(state.model, plan)
            state.last_used = state.kept_at = self._clock()
            state.failures = 0
            facts = (state.model.name, worker.load_seconds, plan.n_ctx, plan.n_slots, worker.pid)
            log.info("loaded %s in %.1f s: %d tokens for each of %d slots, process %d", *facts)
            state.watch = asyncio.create_task(self._watch(state, worker))
            return worker

    async def _pulse(self, worker: Worker) -> None:
        """Kill a worker that hangs: one client's grammar can keep it busy for ever, and block all its clients."""
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
        """Restart a worker that dies."""
        pulse = asyncio.create_task(self._pulse(worker))
        try:
            status = await worker.wait()
        finally:
            pulse.cancel()
        state.worker = None
        why = worker.lost.what if worker.lost else f"the worker of {state.model.name} ended with status {status}"
        log.error("%s; %s is started again", why, state.model.name)
        state.restarting = True
        self.n_restarts += 1
        await worker.stop(grace=0)
        try:
            while not self._closed:
                try:
                    await self._load(state)
                    return
                except EdgellmError as error:
                    log.error("%s: %s", error.what, error.why)
                    state.failures += 1
                    if state.failures > 3:
                        return  # the next request tries again, and gets the reason
                    await asyncio.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2**state.failures))
        finally:
            state.restarting = False

    async def _make_room(self, state: Loaded) -> RunPlan:
        """The plan for a model, once idle models that are in its way have been unloaded."""
        deadline = self._clock() + PATIENCE_SECONDS
        while True:
            problem: EdgellmError | None = None
            try:
                plan = self.plan(state.model)
                if len(self.loaded) < self.options.max_loaded:
                    return plan
            except DoesNotFit as error:
                problem = error
                # What the whole machine has no room for is refused now: no other model must go for it.
                self._choose(
                    state.model, memory.Room(memory.total()), n_ctx=self._asked_context(state.model),
                    kv_type=self.options.kv_type,
                )  # fmt: skip
                if self.release is not None and await self.release():
                    continue
            if not self.loaded:
                if problem is not None and self._shrink(state.model):
                    continue
                raise problem or EngineError("no model may be loaded", why="--max-loaded is 0")
            if await self.unload_idle() or (problem is not None and self._shrink(state.model)):
                continue
            if self._clock() > deadline:
                busy = ", ".join(other.model.name for other in self.loaded)
                message = f"there is no room for {state.model.name} while {busy} is in use"
                raise Problem(503, message, code="models-busy", retry_after=RETRY_SECONDS)
            await asyncio.sleep(0.1)


def wrong_kind(model: ServedModel, kinds: tuple[ModelKind, ...]) -> Problem:
    """The error for a request that this kind of model cannot answer."""
    what = {
        ModelKind.EMBEDDING: "turns texts into vectors",
        ModelKind.COMPLETION: "continues text and does not chat",
        ModelKind.RERANK: "ranks texts by a query",
        ModelKind.CHAT: "writes text",
    }[model.kind]
    asked = " or ".join(kind.value for kind in kinds)
    return Problem(400, f"{model.name} {what}; this needs a model for {asked}", code="wrong-model", field="model")
