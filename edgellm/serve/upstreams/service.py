"""What the endpoints of a front work with: its upstreams, and its counts.

service = fleet_service_of(request)
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from starlette.requests import Request

from edgellm.serve.metrics import Metrics
from edgellm.serve.options import ServeOptions
from edgellm.serve.upstreams.fleet import Fleet
from edgellm.serve.upstreams.sums import MetricSums


@dataclass(frozen=True, slots=True)
class FleetService:
    """The parts of a front; `started` is in seconds since 1970."""

    options: ServeOptions
    fleet: Fleet
    metrics: Metrics = field(default_factory=Metrics)
    sums: MetricSums = field(default_factory=MetricSums)
    started: float = field(default_factory=time.time)


def fleet_service_of(request: Request) -> FleetService:
    """The front that a request belongs to."""
    service: FleetService = request.app.state.service
    return service
