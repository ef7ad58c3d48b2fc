"""Counts of what a server did, for `/metrics` and the status page.

with metrics.watching("smollm2", ending, begin): ...
metrics.timings("smollm2", timings)
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from edgellm.serve.answers import Ending
from edgellm.serve.current import Handled, current

# Rates and times "now" are medians over so many of the last answers.
RECENT = 64
# Upper bounds of the times to the first token that are counted together, in seconds.
TTFT_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


def _recent() -> deque[float]:
    return deque(maxlen=RECENT)


@dataclass(slots=True)
class Figures:
    """What one model did: tokens, seconds, how its answers ended, and the last rates in tokens per second."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    ended: Counter[str] = field(default_factory=Counter)
    prefill_rates: deque[float] = field(default_factory=_recent)
    decode_rates: deque[float] = field(default_factory=_recent)
    ttfts: deque[float] = field(default_factory=_recent)
    ttft_sum: float = 0.0
    # One more than there are bounds: the last one counts what took longer.
    ttft_counts: list[int] = field(default_factory=lambda: [0] * (len(TTFT_BOUNDS) + 1))

    def first_token(self, seconds: float) -> None:
        """An answer began, so long after its request had a worker."""
        self.ttfts.append(seconds)
        self.ttft_sum += seconds
        self.ttft_counts[bisect_left(TTFT_BOUNDS, seconds)] += 1


class Metrics:
    """Counters since the start: requests by endpoint, model and status, and what each model did."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, str]] = Counter()
        self.models: defaultdict[str, Figures] = defaultdict(Figures)

    def request(self, handled: Handled) -> None:
        """A request is over; one whose client went away before it got anything has no status."""
        self.requests[handled.endpoint, handled.model, str(handled.status or "gone")] += 1

    @contextmanager
    def watching(self, model: str, ending: Ending, begin: float) -> Iterator[None]:
        """An answer to its end; `begin` is when the worker was asked, on the clock of `time.perf_counter`."""
        figures = self.models[model]
        ending.on_first_text = lambda: figures.first_token(time.perf_counter() - begin)
        reason = "cancelled"
        try:
            yield
            reason = ending.reason or "itself"
        finally:
            figures.ended[reason] += 1

    def timings(self, model: str, timings: Mapping[str, Any]) -> None:
        """The numbers at the end of an answer, as the worker tells them (milliseconds)."""
        n_prompt, n_cached, n_predicted = (
            int(timings.get(f"{name}_n", 0)) for name in ("prompt", "cache", "predicted")
        )
        prompt_s, predicted_s = (float(timings.get(f"{name}_ms", 0)) / 1000 for name in ("prompt", "predicted"))
        figures = self.models[model]
        figures.prompt_tokens += n_prompt + n_cached
        figures.cached_tokens += n_cached
        figures.completion_tokens += n_predicted
        figures.prefill_seconds += prompt_s
        figures.decode_seconds += predicted_s
        if n_prompt > 0 and prompt_s > 0:
            figures.prefill_rates.append(n_prompt / prompt_s)
        if n_predicted > 1 and predicted_s > 0:
            figures.decode_rates.append(n_predicted / predicted_s)
            current().decode_rate = figures.decode_rates[-1]

    def embedded(self, model: str, reply: Mapping[str, Any]) -> None:
        """Texts were turned into vectors; the reply tells of how many tokens."""
        usage = reply.get("usage")
        if isinstance(usage, dict):
            self.models[model].prompt_tokens += int(usage.get("prompt_tokens", 0))


def usual(recent: deque[float]) -> float | None:
    """The median of the last values, if there are any."""
    return median(recent) if recent else None
