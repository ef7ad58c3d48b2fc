"""The metrics of all upstreams, added up, and those of the front itself: one page in Prometheus' text format.

sums = MetricSums()
sums.note(url, page)        # each time that an upstream has answered
sums.text()

A counter of a fleet must never fall, or rates over it are wrong. So what a server had counted before it was started
again, or went away, stays in the sum.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

# Gauges of which a sum says nothing: the smallest is what clients may rely on, or a mean what one answer has.
SMALLEST = frozenset({"edgellm_uptime_seconds", "edgellm_context_tokens"})
MEAN = frozenset({"edgellm_prefill_tokens_per_second", "edgellm_decode_tokens_per_second"})
MOST_SAMPLES, MOST_LINE = 20_000, 2_000
MOST_FAMILIES = 200
_LINE = re.compile(r'(edgellm_[a-z_]+)(\{(?:[a-z_]+="(?:[^"\\]|\\.)*",?)*\})? (\S+)')
_HEAD = re.compile(r"# (HELP|TYPE) (edgellm_[a-z_]+) (.+)")
_PARTS = ("_bucket", "_sum", "_count")


@dataclass(slots=True)
class Counted:
    """A sample of one upstream: its last value, and what was counted by its earlier processes."""

    value: float = 0.0
    before: float = 0.0


@dataclass(slots=True)
class MetricSums:
    """What upstreams reported; `_heads` are the HELP and TYPE lines by family, in the order of their coming."""

    _heads: dict[str, dict[str, str]] = field(default_factory=dict)
    _counters: dict[str, dict[str, Counted]] = field(default_factory=dict)
    _gauges: dict[str, dict[str, float]] = field(default_factory=dict)

    def note(self, url: str, page: str) -> None:
        """Take over what an upstream reports now; lines that are none are left out."""
        counters = self._counters.setdefault(url, {})
        gauges = self._gauges[url] = {}
        for line in page.splitlines()[:MOST_SAMPLES]:
            if len(line) > MOST_LINE:
                continue
            if head := _HEAD.fullmatch(line):
                if head[2] in self._heads or len(self._heads) < MOST_FAMILIES:
                    self._heads.setdefault(head[2], {}).setdefault(head[1], line)
            elif found := _LINE.fullmatch(line):
                value = _number(found[3])
                name = found[1] + (found[2] or "")
                if value is None or self._type(found[1]) == "":
                    continue
                if self._type(found[1]) == "gauge":
                    gauges[name] = value
                elif name in counters or len(counters) < MOST_SAMPLES:
                    _count(counters.setdefault(name, Counted()), value)

    def away(self, url: str) -> None:
        """An upstream does not answer: its counts stay, what it has now is nothing."""
        self._gauges.pop(url, None)

    def text(self) -> str:
        """The page; it ends with a newline if there is anything on it."""
        samples: defaultdict[str, dict[str, list[float]]] = defaultdict(dict)
        for counters in self._counters.values():
            for name, counted in counters.items():
                samples[_family(name)].setdefault(name, []).append(counted.value + counted.before)
        for gauges in self._gauges.values():
            for name, value in gauges.items():
                samples[_family(name)].setdefault(name, []).append(value)
        lines = [line for family, heads in self._heads.items() for line in _written(family, heads, samples[family])]
        return "".join(f"{line}\n" for line in lines)

    def _type(self, name: str) -> str:
        head = self._heads.get(_family(name), {}).get("TYPE", "")
        return head.rpartition(" ")[2] if head else ""


def _written(family: str, heads: dict[str, str], samples: dict[str, list[float]]) -> Iterator[str]:
    yield from heads.values()
    for name, values in samples.items():
        value = min(values) if family in SMALLEST else sum(values) / len(values) if family in MEAN else sum(values)
        yield f"{name} {value:.12g}"


def _count(counted: Counted, value: float) -> None:
    if value < counted.value:  # it was started again
        counted.before += counted.value
    counted.value = value


def _family(name: str) -> str:
    """The family of a sample: a histogram's samples have a suffix."""
    plain = name.partition("{")[0]
    is_part = "time_to_first_token" in plain
    return next((plain.removesuffix(part) for part in _PARTS if is_part and plain.endswith(part)), plain)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def family(name: str, kind: str, help_text: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    """The lines of a family of the front's own; `samples` are labels and values."""
    yield f"# HELP edgellm_{name} {help_text}"
    yield f"# TYPE edgellm_{name} {kind}"
    for labels, value in samples:
        yield f"edgellm_{name}{labels} {value:.12g}"
