"""The numbers, with a clock that the test moves."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgellm.machine.energy import EnergyMeter
from edgellm.run.events import Drafted, End, Event, Prefill, Text
from edgellm.run.telemetry import Meter
from edgellm.ui.live import final_lines, status_line


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
        return [*timed, *[(0.25, Text("b"))] * 20, (0.0, End("stop"))]

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


def test_drafts_are_counted_and_shown() -> None:
    meter = Meter(n_ctx=100)
    texts: list[Event] = [Text(str(token), token) for token in range(10)]
    list(meter.watch([Prefill(5, 5, 0), *texts, Drafted(4, 3), Drafted(9, 5), End("stop")]))
    stats = meter.stats()
    assert (stats.completion_tokens, stats.drafted_tokens, stats.accepted_tokens) == (10, 9, 5)
    assert stats.tokens_per_pass == 2.0
    assert "drafts   5 of 9 drafted tokens were right, 2.00 tokens a pass" in final_lines(stats, "2 threads")
    assert "2.0 a pass" in status_line(stats, width=140)
    plain = Meter(n_ctx=100)
    list(plain.watch([Text("a"), End("stop")]))
    assert plain.stats().tokens_per_pass == 1.0
    assert "draft" not in final_lines(plain.stats(), "2 threads")
    assert "a pass" not in status_line(plain.stats(), width=140)


def test_cpu_and_energy_over_the_answer(tmp_path: Path) -> None:
    clock, cpu = Clock(), Clock()
    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    counter.parent.mkdir()
    counter.write_text("5000000")
    counter.with_name("name").write_text("package-0")
    meter = Meter(n_ctx=100, clock=clock, cpu_clock=cpu, open_energy=lambda: EnergyMeter(tmp_path))
    for machine in (clock, cpu):
        machine.now += 50  # before the answer begins
    counter.write_text("6000000")

    def play() -> Iterator[Event]:
        for index, event in enumerate([Prefill(10, 10, 0), Text("a"), Text("b"), End("stop")]):
            clock.now += 1.0
            cpu.now += 1.9
            counter.write_text(str(6_000_000 + 1_000_000 * (index + 1)))
            yield event
        counter.write_text("90000000")  # after its end

    for event in meter.watch(play()):
        if event == Text("b"):
            assert meter.stats().energy_joules == pytest.approx(3.0)  # so far
    stats = meter.stats()
    assert stats.seconds == pytest.approx(4.0) and stats.cpu_seconds == pytest.approx(7.6)
    assert stats.cores_used == pytest.approx(1.9) and stats.energy_joules == pytest.approx(4.0)
    assert "1.9 cores in use, 4 J (2 J a token)" in final_lines(stats, "2 threads")
    assert final_lines(replace(stats, energy_joules=None), "2 threads").endswith("1.9 cores in use; 2 threads")


def test_nothing_generated_gives_zeros_not_errors() -> None:
    stats = Meter(n_ctx=10).stats()
    assert (stats.prefill_rate, stats.decode_rate, stats.ttft_seconds, stats.cores_used) == (0.0, 0.0, 0.0, 0.0)
    assert stats.energy_joules is None
