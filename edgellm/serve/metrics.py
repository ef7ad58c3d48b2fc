"""Counts of what a server did, for `/metrics` and the status page.

with metrics.watching("smollm2", "chat", ending): ...
metrics.tokens("smollm2", timings)
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from edgellm.serve.answers import Ending

# Rates and times "now" are medians over so many of the last answers.
RECENT = 64


class Metrics:
    """Counters since the start, by model; recent rates in tokens per second, times in seconds."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.responses: Counter[int] = Counter()
        self.ended: Counter[str] = Counter()
        self.prompt_tokens: Counter[str] = Counter()
        self.cached_tokens: Counter[str] = Counter()
        self.completion_tokens: Counter[str] = Counter()
        self.prefill_seconds: Counter[str] = Counter()
        self.decode_seconds: Counter[str] = Counter()
        self.recent_decode: deque[float] = deque(maxlen=RECENT)
        self.recent_prefill: deque[float] = deque(maxlen=RECENT)
        self.recent_ttft: deque[float] = deque(maxlen=RECENT)
        self.answering = 0

    @contextmanager
    def watching(self, model: str, protocol: str, ending: Ending) -> Iterator[None]:
        """An answer from its request to its end."""
        self.requests[model, protocol] += 1
        self.answering += 1
        begin = time.perf_counter()
        ending.on_first_text = lambda: self.recent_ttft.append(time.perf_counter() - begin)
        try:
            yield
        finally:
            self.answering -= 1
            self.ended[ending.reason or "itself"] += 1

    def timings(self, model: str, timings: Mapping[str, Any]) -> None:
        """The numbers at the end of an answer, as the worker tells them (milliseconds)."""
        n_prompt, n_cached, n_predicted = (
            int(timings.get(f"{name}_n", 0)) for name in ("prompt", "cache", "predicted")
        )
        prompt_s, predicted_s = (float(timings.get(f"{name}_ms", 0)) / 1000 for name in ("prompt", "predicted"))
        self.prompt_tokens[model] += n_prompt + n_cached
        self.cached_tokens[model] += n_cached
        self.completion_tokens[model] += n_predicted
        self.prefill_seconds[model] += prompt_s  # type: ignore[assignment]
        self.decode_seconds[model] += predicted_s  # type: ignore[assignment]
        if n_prompt > 0 and prompt_s > 0:
            self.recent_prefill.append(n_prompt / prompt_s)
        if n_predicted > 1 and predicted_s > 0:
            self.recent_decode.append(n_predicted / predicted_s)
