"""The numbers, with a clock that the test moves."""

import pytest

from edgellm.run.generation import Event, Finished, Prefill, Text
from edgellm.run.telemetry import Meter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rates_and_times() -> None:
    clock = Clock()
    meter = Meter(n_ctx=1000, load_seconds=0.5, clock=clock)

    def events() -> "list[tuple[float, Event]]":
        timed: list[tuple[float, Event]] = [(0.0, Prefill(10, 50, 10)), (2.0, Prefill(50, 50, 10)), (0.5, Text("a"))]
        return [*timed, *[(0.25, Text("b"))] * 20, (0.0, Finished("stop"))]

    def play() -> "object":
        for delay, event in events():
            clock.now += delay
            yield event

    list(meter.watch(play()))  # type: ignore[arg-type]
    stats = meter.stats()
    assert stats.prefill_rate == pytest.approx(20.0)
    assert stats.ttft_seconds == pytest.approx(2.5)
    assert stats.decode_rate == pytest.approx(4.0) and meter.rate_now == pytest.approx(4.0)
    assert (stats.completion_tokens, stats.context_used, stats.finish_reason) == (21, 71, "stop")
    assert stats.load_seconds == 0.5 and 0 < stats.resident_bytes <= stats.peak_resident_bytes
    assert stats.available_bytes > 0


def test_nothing_generated_gives_zeros_not_errors() -> None:
    stats = Meter(n_ctx=10).stats()
    assert (stats.prefill_rate, stats.decode_rate, stats.ttft_seconds) == (0.0, 0.0, 0.0)
