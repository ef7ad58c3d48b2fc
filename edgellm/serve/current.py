"""The request that is being answered: what those who count and log it want to know of it at its end.

current().model = "smollm2"

Whatever works for a request, in its tasks too, finds the same object here.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Handled:
    """A request: `endpoint` is its route, `status` 0 until an answer begins, `decode_rate` in tokens per second."""

    method: str = ""
    path: str = ""
    endpoint: str = ""
    model: str = ""
    status: int = 0
    seconds: float = 0.0
    decode_rate: float | None = None


_current: ContextVar[Handled | None] = ContextVar("edgellm_request", default=None)


def current() -> Handled:
    """The request that this task works for; outside of any, one that nobody looks at."""
    return _current.get() or Handled()


def begin(handled: Handled) -> None:
    """Work for this request from here on."""
    _current.set(handled)
