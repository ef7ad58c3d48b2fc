"""The request that is being answered: what counters and logs need to know when it is over.

current().model = "smollm2"

All code that works for a request finds the same object here, in its child tasks too.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Handled:
    """A request: `endpoint` is its route, `status` 0 until an answer begins, `decode_rate` in tokens per second.

    `no_cache`: the client wants an answer that is computed for it.
    """

    method: str = ""
    path: str = ""
    endpoint: str = ""
    model: str = ""
    status: int = 0
    seconds: float = 0.0
    decode_rate: float | None = None
    no_cache: bool = False


_current: ContextVar[Handled | None] = ContextVar("edgellm_request", default=None)


def current() -> Handled:
    """The request of this task; outside of a request, an object that is thrown away."""
    return _current.get() or Handled()


def begin(handled: Handled) -> None:
    """Make this the request of the present task."""
    _current.set(handled)
