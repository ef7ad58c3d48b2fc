"""What a server is doing now: the document of /status.json, which the page, `edgellm ps` and /metrics read.

status_of(service).models[0].state
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgellm.machine import memory
from edgellm.machine.process import ProcessUsage, usage
from edgellm.models.fit.memory import RunPlan, estimate
from edgellm.models.fit.outline import Outline
from edgellm.serve.metrics import usual
from edgellm.serve.service import Service, service_of
from edgellm.serve.workers.catalog import ServedModel
from edgellm.serve.workers.pool import Loaded
from edgellm.version import __version__

LOADED, LOADING, RESTARTING, NOT_LOADED = "loaded", "loading", "restarting", "not loaded"


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model. Sizes are bytes, rates are tokens per second and medians of recent answers; None means unknown.

    A model `answers_plainly` if it has no thoughts, which the server would set apart from the answer.
    `needed_bytes` is the estimate for `n_ctx` tokens in each of `n_slots` slots. `waiting` counts the requests in
    flight that have no slot yet. `idle_seconds` is None unless the model is loaded and idle. `scoring_...` describes
    the process that computes log-probabilities of prompts, which may run without a worker.
    """

    name: str
    kind: str
    state: str
    quant: str
    n_params: int
    n_ctx: int
    n_ctx_train: int
    n_slots: int
    kv_type: str
    n_threads: int
    answers_plainly: bool
    needed_bytes: int
    pid: int | None
    resident_bytes: int | None
    peak_resident_bytes: int | None
    cpu_seconds: float | None
    in_flight: int
    waiting: int
    idle_seconds: float | None
    scoring_pid: int | None
    scoring_resident_bytes: int | None
    scoring_in_flight: int
    requests: int
    prompt_tokens: int
    cached_tokens: int
    restored_tokens: int
    completion_tokens: int
    prefill_rate: float | None
    decode_rate: float | None
    ttft_seconds: float | None
    loops_stopped: int
    cache_hits: int
    cache_misses: int


@dataclass(frozen=True, slots=True)
class Status:
    """The server: `started` is in seconds since 1970; `resident_bytes` is the front's alone.

    `documents` are the collections that its models answer from, as MODEL@NAME.
    """

    version: str
    pid: int
    started: float
    uptime_seconds: float
    resident_bytes: int
    peak_resident_bytes: int
    available_bytes: int
    total_bytes: int
    requests: int
    in_flight: int
    worker_restarts: int
    models: tuple[ModelStatus, ...]
    documents: tuple[str, ...] = ()


def status_of(service: Service, documents: Sequence[str] = ()) -> Status:
    """The present status, with the names of the collections that are offered."""
    asked: Counter[str] = Counter()
    for (_, model, _), count in service.metrics.requests.items():
        asked[model] += count
    return Status(
        version=__version__,
        pid=os.getpid(),
        started=service.started,
        uptime_seconds=time.time() - service.started,
        resident_bytes=memory.resident(),
        peak_resident_bytes=memory.peak_resident(),
        available_bytes=memory.available(),
        total_bytes=memory.total(),
        requests=asked.total(),
        in_flight=service.pool.n_in_flight,
        worker_restarts=service.pool.n_restarts,
        models=tuple(_model(service, model, asked[model.name]) for model in service.pool.catalog),
        documents=tuple(documents),
    )


async def status(request: Request) -> Response:
    """GET /status.json."""
    service = service_of(request)
    found = status_of(service, [store.name for store in await service.listed_stores()])
    return JSONResponse(asdict(found), headers={"Cache-Control": "no-store"})


ROUTES = [Route("/status.json", status, methods=["GET"])]


def _model(service: Service, model: ServedModel, n_requests: int) -> ModelStatus:
    state, figures = service.pool.state(model), service.metrics.models[model.name]
    worker = state.worker
    plan = service.pool.expected(model)
    used = _used(worker.pid) if worker else None
    scoring = service.scoring.state(model)
    scorer = scoring.worker.pid if scoring.worker else None
    scorer_used = _used(scorer) if scorer else None
    return ModelStatus(
        name=model.name,
        kind=model.kind.value,
        state=_word(state),
        quant=model.outline.quant,
        n_params=model.outline.n_params,
        n_ctx=plan.n_ctx,
        n_ctx_train=model.outline.n_ctx_train,
        n_slots=plan.n_slots,
        kv_type=plan.kv_type,
        n_threads=plan.n_threads,
        answers_plainly=model.answers_plainly,
        needed_bytes=needed(model.outline, plan),
        pid=worker.pid if worker else None,
        resident_bytes=used.resident_bytes if used else None,
        peak_resident_bytes=used.peak_resident_bytes if used else None,
        cpu_seconds=used.cpu_seconds if used else None,
        in_flight=state.in_flight,
        waiting=max(0, state.in_flight - plan.n_slots),
        idle_seconds=service.pool.idle_seconds(state),
        scoring_pid=scorer,
        scoring_resident_bytes=scorer_used.resident_bytes if scorer_used else None,
        scoring_in_flight=scoring.in_flight,
        requests=n_requests,
        prompt_tokens=figures.prompt_tokens,
        cached_tokens=figures.cached_tokens,
        restored_tokens=figures.restored_tokens,
        completion_tokens=figures.completion_tokens,
        prefill_rate=usual(figures.prefill_rates),
        decode_rate=usual(figures.decode_rates),
        ttft_seconds=usual(figures.ttfts),
        loops_stopped=figures.ended["repetition"],
        cache_hits=service.metrics.looked[model.name, "hit"],
        cache_misses=service.metrics.looked[model.name, "miss"],
    )


def _used(pid: int) -> ProcessUsage | None:
    try:
        return usage(pid)
    except ProcessLookupError:  # it has just ended
        return None


def _word(state: Loaded) -> str:
    if state.restarting:
        return RESTARTING
    if state.worker is not None:
        return LOADED
    return LOADING if state.starting.locked() else NOT_LOADED


@lru_cache(maxsize=512)
def needed(outline: Outline, plan: RunPlan) -> int:
    """The estimated memory of a model with this plan, in bytes."""
    return estimate(outline, plan).total
