"""What a benchmark found: every single figure, and what people read of them.

    measurement.rate.median, measurement.rate.lowest, measurement.ratio

A figure is one per round, in order; rounds are interleaved, so figures of the same round were taken side by side, and
ratios are taken round by round before their median is.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["prefill", "decode"]
# A spread (largest - smallest over the median) from which on a figure is called noisy.
NOISY = 0.15


@dataclass(frozen=True, slots=True)
class Samples:
    """One figure a round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure to remember."""
        return statistics.median(self.values)

    @property
    def lowest(self) -> float:
        """The smallest of all rounds."""
        return min(self.values)

    @property
    def highest(self) -> float:
        """The largest of all rounds."""
        return max(self.values)

    @property
    def spread(self) -> float:
        """Largest minus smallest, over the median."""
        return (self.highest - self.lowest) / self.median if self.median else 0.0

    def over(self, other: Samples) -> Samples:
        """The ratios, round by round."""
        return Samples(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))


@dataclass(frozen=True, slots=True)
class Test:
    """What is measured: reading a prompt of `n_tokens`, or generating so many in each of `n_seq` sequences at once."""

    kind: Kind
    n_tokens: int
    n_seq: int
    n_threads: int

    __test__ = False  # not one of pytest's

    def __str__(self) -> str:
        together = f" x {self.n_seq}" if self.n_seq > 1 else ""
        return f"{self.kind} {self.n_tokens}{together}"


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement: tokens per second, all sequences together; seconds to the first token after a prompt; CPU cores
    in use; energy of the processors. None where it is not known."""

    rate: float
    ttft_seconds: float | None = None
    cores_used: float | None = None
    joules_per_token: float | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One contender in one test.

    `ratio` is its rate over that of the contender it is compared with; `roofline` the share of the bandwidth of reading
    that it used, both of the same rounds; None where there is nothing to compare with, or nothing known. `cores_used`
    and `joules_per_token` are not known of a peer, and the energy only where its counters may be read.
    """

    contender: str
    test: Test
    rate: Samples
    ttft_seconds: Samples | None
    ratio: Samples | None
    roofline: Samples | None
    cores_used: Samples | None = None
    joules_per_token: Samples | None = None


@dataclass(frozen=True, slots=True)
class Contestant:
    """What is known of a contender as a whole; sizes are bytes.

    `kernels` is the level that was forced, "stock", or "" for the best there is; `load_seconds` goes from the start of
    loading to the first token computed, with the file in the page cache; `bytes_per_token` is what decoding reads;
    `fingerprint` is that of the model's header, the same for the same model wherever it lies.
    """

    name: str
    path: Path
    fingerprint: str
    kernels: str
    against: str | None
    peer: Path | None
    n_bytes: int
    bytes_per_token: int | None
    load_seconds: Samples | None
    peak_resident_bytes: int | None


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bytes per second that so many threads read, once a round."""

    n_threads: int
    rate: Samples


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and with what a benchmark ran; `date` is ISO 8601 in UTC."""

    date: str
    cpu: str
    engine: str
    stamp: str
    compiler: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The whole result; `together` is false when the contenders had to be loaded in turn for want of memory."""

    setting: Setting
    n_rounds: int
    depth: int
    together: bool
    complete: bool
    contenders: tuple[Contestant, ...]
    bandwidth: tuple[Bandwidth, ...]
    measurements: tuple[Measurement, ...]

    @property
    def noisy(self) -> Sequence[Measurement]:
        """The measurements whose rounds differ too much."""
        return [measurement for measurement in self.measurements if measurement.rate.spread > NOISY]
