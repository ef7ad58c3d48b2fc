"""Counts of what a server did, for `/metrics` and the status page.

async for event in metrics.watch("smollm2", events, time.perf_counter()): ...
metrics.models["smollm2"].completion_tokens
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from edgellm.run.events import End, Event, Returned, Text, Thought
from edgellm.serve.http.current import Handled, current

# How an answer ended, unless edgellm cut it: the reasons of `Cut` are the other two.
BY_ITSELF, CANCELLED = "itself", "cancelled"
# Current rates and times are medians over this many recent answers.
RECENT = 64
# Upper bounds of the histogram of times to first token, in seconds.
TTFT_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


def _recent() -> deque[float]:
    return deque(maxlen=RECENT)


@dataclass(slots=True)
class Figures:
    """Counts of one model: tokens, seconds, how its answers ended, and recent rates in tokens per second."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    restored_tokens: int = 0
    completion_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    ended: Counter[str] = field(default_factory=Counter)
    prefill_rates: deque[float] = field(default_factory=_recent)
    decode_rates: deque[float] = field(default_factory=_recent)
    ttfts: deque[float] = field(default_factory=_recent)
    ttft_sum: float = 0.0
    # One more than there are bounds: the last one counts everything slower.
    ttft_counts: list[int] = field(default_factory=lambda: [0] * (len(TTFT_BOUNDS) + 1))

    def first_token(self, seconds: float) -> None:
        """An answer began, this long after the worker was asked."""
        self.ttfts.append(seconds)
        self.ttft_sum += seconds
        self.ttft_counts[bisect_left(TTFT_BOUNDS, seconds)] += 1


class Metrics:
    """Counters since the start: requests by endpoint, model and status, and the figures of each model.

    `looked` counts what the answer cache found, by model and `hit` or `miss`; `called` counts the tools that the server
    ran, by name and `done` or `failed`.
    """

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, str]] = Counter()
        self.models: defaultdict[str, Figures] = defaultdict(Figures)
        self.looked: Counter[tuple[str, str]] = Counter()
        self.called: Counter[tuple[str, str]] = Counter()

    def request(self, handled: Handled) -> None:
        """A request is over; it has no status if its client left before the response began."""
        self.requests[handled.endpoint, handled.model, str(handled.status or "gone")] += 1

    def looked_up(self, model: str, *, hit: bool) -> None:
        """A question was looked up in the answer cache."""
        self.looked[model, "hit" if hit else "miss"] += 1

    def tool_returned(self, returned: Returned, *, is_known: bool) -> None:
        """A tool of the server has returned; names that a model made up are counted together."""
        self.called[returned.name if is_known else "unknown", "failed" if returned.error else "done"] += 1

    async def watch(self, model: str, events: AsyncIterator[Event], asked_at: float) -> AsyncGenerator[Event, None]:
        """Pass an answer's events on, counted; `asked_at` is on the clock of `time.perf_counter`."""
        figures, reason, has_text = self.models[model], CANCELLED, False
        try:
            async for event in events:
                match event:
                    case Text() | Thought() if not has_text and event.text:
                        has_text = True
                        figures.first_token(time.perf_counter() - asked_at)
                    case End():
                        reason = event.cut.reason if event.cut else BY_ITSELF
                        self._timings(figures, event.timings)
                yield event
        finally:
            figures.ended[reason] += 1

    def _timings(self, figures: Figures, timings: Mapping[str, Any]) -> None:
        """The figures of an answer's end, as llama-server has them (milliseconds)."""
        n_prompt, n_cached, n_predicted = (
            int(timings.get(f"{name}_n", 0)) for name in ("prompt", "cache", "predicted")
        )
        prompt_s, predicted_s = (float(timings.get(f"{name}_ms", 0)) / 1000 for name in ("prompt", "predicted"))
        figures.prompt_tokens += n_prompt + n_cached
        figures.cached_tokens += n_cached
        figures.restored_tokens += int(timings.get("disk_n", 0))
        figures.completion_tokens += n_predicted
        figures.drafted_tokens += int(timings.get("draft_n", 0))
        figures.accepted_tokens += int(timings.get("draft_n_accepted", 0))
        figures.prefill_seconds += prompt_s
        figures.decode_seconds += predicted_s
        if n_prompt > 0 and prompt_s > 0:
            figures.prefill_rates.append(n_prompt / prompt_s)
        if n_predicted > 1 and predicted_s > 0:
            figures.decode_rates.append(n_predicted / predicted_s)
            current().decode_rate = figures.decode_rates[-1]

    @contextmanager
    def scoring(self, model: str) -> Iterator[Counter[str]]:
        """Count one request that scores prompts; the caller replaces the reason if it did not end by itself."""
        ended = Counter({BY_ITSELF: 1})
        try:
            yield ended
        except BaseException:
            ended = Counter({CANCELLED: 1})
            raise
        finally:
            self.models[model].ended.update(ended)

    def embedded(self, model: str, reply: Mapping[str, Any]) -> None:
        """Count the tokens of texts that became vectors."""
        usage = reply.get("usage")
        if isinstance(usage, dict):
            self.models[model].prompt_tokens += int(usage.get("prompt_tokens", 0))


def usual(recent: deque[float]) -> float | None:
    """The median of recent values, None if there are none."""
    return median(recent) if recent else None
