"""What a front reports: the status of all upstreams as that of one server, and a line for each of them.

fleet_status(service).upstreams[0].problem

A front has the document of a server, so `edgellm ps`, clients and other fronts read it as they read a server's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from edgellm.machine import memory
from edgellm.serve.upstreams.member import Member
from edgellm.serve.upstreams.service import FleetService
from edgellm.serve.watch.status import LOADED, LOADING, NOT_LOADED, RESTARTING, ModelStatus, Status
from edgellm.version import __version__

STATES = (LOADED, LOADING, RESTARTING, NOT_LOADED)
# Fields of a model that are not added up.
LEAST = ("n_ctx", "n_ctx_train", "n_threads", "idle_seconds")
MEANS = ("prefill_rate", "decode_rate", "ttft_seconds")
FIRST = ("name", "kind", "quant", "kv_type", "n_params")


@dataclass(frozen=True, slots=True)
class UpstreamStatus:
    """An upstream: `problem` says why it gets no requests, null where it does.

    `in_flight` are the front's own requests there, `answered` those that it answered since the front began. Of these
    `cache_hits` were sent where the front expected their beginning to be cached. `lost` were those that it did not
    finish, `refused` those that it had no room for.
    """

    url: str
    problem: str | None
    version: str
    models: tuple[str, ...]
    loaded: tuple[str, ...]
    n_slots: int
    in_flight: int
    answered: int
    cache_hits: int
    lost: int
    refused: int


@dataclass(frozen=True, slots=True)
class FleetStatus(Status):
    """The upstreams as one server; memory that is available is that of all of them together.

    `fronts` are the ids of this front and of those behind it: a front refuses an upstream that leads back to it.
    """

    upstreams: tuple[UpstreamStatus, ...] = ()
    retries: int = 0
    fronts: tuple[str, ...] = ()


def fleet_status(service: FleetService) -> FleetStatus:
    """The present status."""
    fleet = service.fleet
    up = [member.snapshot for member in fleet.up]
    names = dict.fromkeys(name for snapshot in up for name in snapshot.models)
    models = (merged_model([each.models[name] for each in up if name in each.models]) for name in names)
    fronts = {fleet.front, *(front for snapshot in up for front in snapshot.fronts)}
    return FleetStatus(
        version=__version__,
        pid=os.getpid(),
        started=service.started,
        uptime_seconds=time.time() - service.started,
        resident_bytes=memory.resident(),
        peak_resident_bytes=memory.peak_resident(),
        available_bytes=sum(snapshot.available_bytes for snapshot in up),
        total_bytes=sum(snapshot.total_bytes for snapshot in up),
        requests=service.metrics.requests.total(),
        in_flight=sum(sum(member.in_flight.values()) for member in fleet.members),
        worker_restarts=sum(snapshot.worker_restarts for snapshot in up),
        models=tuple(models),
        documents=tuple(dict.fromkeys(name for snapshot in up for name in snapshot.documents)),
        upstreams=tuple(_upstream(member) for member in fleet.members),
        retries=fleet.n_retries,
        fronts=tuple(sorted(fronts)),
    )


def merged_model(found: Sequence[ModelStatus]) -> ModelStatus:
    """A model of several servers as one: slots, requests and bytes added up, the shortest context."""
    combine: dict[str, Callable[[list[Any]], Any]] = {
        "answers_plainly": all,
        "state": lambda states: min(states, key=lambda state: STATES.index(state) if state in STATES else 9),
        "pid": lambda _: None,
        "scoring_pid": lambda _: None,
        **dict.fromkeys(LEAST, min),
        **dict.fromkeys(MEANS, lambda values: sum(values) / len(values)),
        **dict.fromkeys(FIRST, lambda values: values[0]),
    }
    merged: dict[str, Any] = {}
    for each in fields(ModelStatus):
        values = [value for model in found if (value := getattr(model, each.name)) is not None]
        merged[each.name] = combine.get(each.name, sum)(values) if values else None
    return ModelStatus(**merged)


def _upstream(member: Member) -> UpstreamStatus:
    models: Iterable[ModelStatus] = member.snapshot.models.values()
    loaded = [model for model in models if model.state == LOADED]
    return UpstreamStatus(
        url=member.url,
        problem=member.problem or None,
        version=member.snapshot.version,
        models=tuple(member.snapshot.models),
        loaded=tuple(model.name for model in loaded),
        n_slots=sum(model.n_slots for model in loaded),
        in_flight=sum(member.in_flight.values()),
        answered=member.answered,
        cache_hits=member.hits,
        lost=member.lost,
        refused=member.refused,
    )
