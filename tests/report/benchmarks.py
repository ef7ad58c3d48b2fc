"""Benchmarks in code."""

from pathlib import Path

from edgellm.measure.bench.result import Bandwidth, Benchmark, Contestant, Kind, Measurement, Samples, Setting, Test

TESTS: tuple[tuple[Kind, int], ...] = (("prefill", 1), ("decode", 1), ("decode", 4))
SETTING = Setting("2026-11-28T22:00:00+00:00", "A CPU", "0.3.36", "e4687ea5483e", "cc 12.2")


def contestant(name: str, against: str | None = None, resident: int = 200_000_000) -> Contestant:
    return Contestant(
        name, Path(f"/models/{name}.gguf"), f"hash of {name}", "", against, None, 98_000_000, 97_000_000,
        Samples((0.2, 0.3)), resident,
    )  # fmt: skip


def measured(
    name: str,
    kind: Kind,
    rates: tuple[float, ...],
    *,
    threads: int = 1,
    n_seq: int = 1,
    ratio: float | None = None,
) -> Measurement:
    test = Test(kind, 64 if kind == "prefill" else 16, n_seq, threads)
    ratios = Samples((ratio, ratio * 1.05)) if ratio else None
    share = Samples((0.5, 0.55)) if kind == "decode" and n_seq == 1 else None
    return Measurement(name, test, Samples(rates), Samples((0.7, 0.8)) if kind == "prefill" else None, ratios, share)


def benchmark(measurements: list[Measurement], *contenders: Contestant, depth: int = 0) -> Benchmark:
    bandwidth = (Bandwidth(1, Samples((10e9, 11e9))),)
    return Benchmark(SETTING, 2, depth, True, True, contenders, bandwidth, tuple(measurements))


def two_models() -> Benchmark:
    """Ours against a base at one and two threads, alone and four sequences at once; one figure is noisy."""
    measurements = [
        measured(name, kind, (rate * threads * n_seq, rate * threads * n_seq * spread), threads=threads, n_seq=n_seq,
                 ratio=2.0 if name == "ours" else None)
        for threads in (1, 2)
        for kind, n_seq in TESTS
        for name, rate, spread in (("ours", 40.0, 1.02), ("base", 20.0, 1.5 if n_seq == 4 else 1.02))
    ]  # fmt: skip
    return benchmark(measurements, contestant("ours", "base"), contestant("base", resident=300_000_000))
