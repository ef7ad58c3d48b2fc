"""The numbers of one answer: rates, time to first token, context, memory, CPU and energy.

meter = Meter(load_seconds=0.3)
for event in meter.watch(generate(...)): ...
meter.stats().decode_rate
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from edgellm.machine import memory
from edgellm.machine.energy import EnergyMeter
from edgellm.machine.process import cpu_seconds, usage
from edgellm.run.events import NO_TOKEN, Drafted, End, Event, Looped, Prefill, Text

# The rate "now" is taken over this many of the last tokens.
WINDOW = 16


@dataclass(frozen=True, slots=True)
class Stats:
    """One answer in numbers. Times are seconds, memory is bytes, rates are tokens per second.

    `prompt_tokens` counts the whole prompt, `reused_tokens` the part that was in the cache already, and
    `restored_tokens` what of that came from disk for this answer. The first token comes out of the prompt's last
    computation, so `decode_rate` counts the tokens after it. `dropped_tokens` were generated too, but repeated what
    came before and are no part of the answer. `accepted_tokens` of the `drafted_tokens` were right, and were computed
    together with others. `cpu_seconds` is the CPU time of this process over the answer's `seconds`; `energy_joules`
    what the processors used meanwhile, None where that
    cannot be read.
    """

    prompt_tokens: int
    reused_tokens: int
    completion_tokens: int
    dropped_tokens: int
    finish_reason: str
    load_seconds: float
    prefill_seconds: float
    decode_seconds: float
    ttft_seconds: float
    n_ctx: int
    resident_bytes: int
    peak_resident_bytes: int
    available_bytes: int
    seconds: float
    cpu_seconds: float
    energy_joules: float | None
    restored_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def context_used(self) -> int:
        """Tokens in the context after the answer."""
        return self.prompt_tokens + self.completion_tokens - self.dropped_tokens

    @property
    def prefill_rate(self) -> float:
        """Prompt tokens computed per second."""
        return _rate(self.prompt_tokens - self.reused_tokens, self.prefill_seconds)

    @property
    def decode_rate(self) -> float:
        """Tokens generated per second, after the first."""
        return _rate(self.completion_tokens - 1, self.decode_seconds)

    @property
    def tokens_per_pass(self) -> float:
        """Tokens that a pass over the model gave, on average: 1 without drafts."""
        n_passes = self.completion_tokens - self.accepted_tokens
        return self.completion_tokens / n_passes if n_passes > 0 else 1.0

    @property
    def cores_used(self) -> float:
        """CPU cores that were busy for it, on average."""
        return self.cpu_seconds / self.seconds if self.seconds > 0 else 0.0


class Meter:
    """Measures one answer by its events."""

    def __init__(
        self,
        *,
        n_ctx: int,
        load_seconds: float = 0.0,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = cpu_seconds,
        open_energy: Callable[[], EnergyMeter] = EnergyMeter,
    ) -> None:
        self._n_ctx = n_ctx
        self._load_seconds = load_seconds
        self._clock, self._cpu_clock, self._open_energy = clock, cpu_clock, open_energy
        self._begin = self._prefilled = self._first = self._last = self._end = clock()
        self._cpu_begin = self._cpu_end = cpu_clock()
        self._energy: EnergyMeter | None = None
        self._joules: float | None = None
        self._recent: deque[float] = deque(maxlen=WINDOW + 1)
        self.prefill = Prefill(0, 0, 0)
        self.completion_tokens = 0
        self.dropped_tokens = 0
        self.drafted = Drafted(0, 0)
        self.repeated = 1
        self.finish_reason = ""

    def start(self) -> None:
        """Begin to measure; `watch` does it otherwise."""
        self._energy = self._open_energy()
        self._begin, self._cpu_begin = self._clock(), self._cpu_clock()

    def watch(self, events: Iterable[Event]) -> Iterator[Event]:
        """Pass the events on, and count and time them."""
        if self._energy is None:
            self.start()
        for event in events:
            self._see(event)
            yield event

    def _see(self, event: Event) -> None:
        now = self._end = self._clock()
        self._cpu_end = self._cpu_clock()
        if self._energy:
            self._energy.tick()
        match event:
            case Prefill():
                self.prefill = event
                self._prefilled = now
            case Text(token=token) if token != NO_TOKEN:
                self.repeated = event.repeated
                if self.completion_tokens == 0:
                    self._first = now
                self.completion_tokens += 1
                self._last = now
                self._recent.append(now)
            case Drafted():
                self.drafted = event
            case Looped(kept_tokens=kept):
                self.dropped_tokens = self.completion_tokens - kept
            case End(reason):
                self.finish_reason = reason
                self._joules = self._energy.joules() if self._energy else None

    @property
    def rate_now(self) -> float:
        """Tokens per second over the last few tokens."""
        return _rate(len(self._recent) - 1, self._recent[-1] - self._recent[0]) if self._recent else 0.0

    def stats(self) -> Stats:
        """The numbers so far."""
        started = self.completion_tokens > 0
        used = usage()
        joules = self._energy.joules() if self._energy and not self.finish_reason else self._joules
        return Stats(
            prompt_tokens=self.prefill.total,
            reused_tokens=self.prefill.reused,
            completion_tokens=self.completion_tokens,
            dropped_tokens=self.dropped_tokens,
            finish_reason=self.finish_reason,
            load_seconds=self._load_seconds,
            prefill_seconds=self._prefilled - self._begin,
            decode_seconds=self._last - self._first,
            ttft_seconds=self._first - self._begin if started else 0.0,
            n_ctx=self._n_ctx,
            resident_bytes=used.resident_bytes,
            peak_resident_bytes=used.peak_resident_bytes,
            available_bytes=memory.available(),
            seconds=self._end - self._begin,
            cpu_seconds=self._cpu_end - self._cpu_begin,
            energy_joules=joules,
            restored_tokens=self.prefill.restored,
            drafted_tokens=self.drafted.drafted,
            accepted_tokens=self.drafted.accepted,
        )


def _rate(count: int, seconds: float) -> float:
    return count / seconds if count > 0 and seconds > 0 else 0.0
