"""The result of a benchmark: every single sample, and the statistics shown to people.

    measurement.rate.median, measurement.rate.lowest, measurement.ratio

There is one sample per round, in order. Samples of the same round were taken side by side, so ratios are computed
round by round, and their median afterwards.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgellm.models.fit.tuned_plan import Tuning

Kind = Literal["prefill", "decode", "draft"]
# From this spread on, (largest - smallest) / median, a measurement counts as noisy.
NOISY = 0.15
# What is faster than something else: by so much in the median, and in every one of so many rounds.
MARGIN, LEAST_ROUNDS = 0.03, 3


@dataclass(frozen=True, slots=True)
class Samples:
    """One sample per round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of all rounds."""
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

    def is_gain(self) -> bool:
        """Whether ratios say "faster" and not "noise": above 1 in each of enough rounds, clearly so in the median."""
        return len(self.values) >= LEAST_ROUNDS and self.lowest > 1 and self.median >= 1 + MARGIN

    def over(self, other: Samples) -> Samples:
        """Return the ratios to another contender's samples, round by round."""
        return Samples(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))


@dataclass(frozen=True, slots=True)
class Test:
    """A test: prefill of `n_tokens`, generation of `n_tokens` in each of `n_seq` sequences at once, or one pass over
    `n_tokens` with the logits of each, as for drafts."""

    kind: Kind
    n_tokens: int
    n_seq: int
    n_threads: int

    __test__ = False  # not a pytest class

    def __str__(self) -> str:
        together = f" x {self.n_seq}" if self.n_seq > 1 else ""
        return f"{self.kind} {self.n_tokens}{together}"


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement: tokens per second over all sequences, seconds from prompt to first token, CPU cores in use, and
    energy of the processors. Unknown values are None."""

    rate: float
    ttft_seconds: float | None = None
    cores_used: float | None = None
    joules_per_token: float | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """The results of one contender in one test.

    `ratio` is its rate over the rate of the contender it is compared with. `roofline` is the share of the read
    bandwidth that it used in the same rounds. Both are None when not applicable or unknown. `cores_used` and
    `joules_per_token` are None for a peer, and the latter also where the energy counters cannot be read.
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
    """The data of a contender that are the same for all tests; sizes are in bytes.

    `kernels` is the forced level, "stock", or "" for the best one. `load_seconds` is the time from the start of
    loading to the first computed token, with the file in the page cache. `bytes_per_token` is what decoding a token
    reads. `fingerprint` hashes the model's header, and is the same for the same model at any path. `tuning` is how the
    other verbs run the model, None if they do not run it so.
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
    tuning: Tuning | None = None


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """The bytes per second that `n_threads` threads read together, measured once per round."""

    n_threads: int
    rate: Samples


@dataclass(frozen=True, slots=True)
class Setting:
    """The machine and the software of a benchmark; `date` is ISO 8601 in UTC."""

    date: str
    cpu: str
    engine: str
    stamp: str
    compiler: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """The whole result; `together` is false when memory was too small to load all contenders at once."""

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
        """The measurements whose samples spread too much."""
        return [measurement for measurement in self.measurements if measurement.rate.spread > NOISY]
