"""What a fine-tuning shows: the figures of the live line, and the loss as a small chart.

training_figures([2.3, 1.9], 2.1, 412.0, 93.0, chart=True)
sparkline([2.3, 2.0, 1.4, 1.1])  ->  "█▆▃▁"
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from edgellm.machine import memory
from edgellm.units import clock, rate, size

_BARS = "▁▂▃▄▅▆▇█"
CHART_WIDTH = 24


def training_figures(
    losses: Sequence[float], held_out: float | None, tokens_per_second: float, seconds_left: float, *, chart: bool
) -> str:
    """The figures of a step; with `chart` the losses so far in front of them."""
    parts = [
        sparkline(losses, CHART_WIDTH // 2) if chart else "",
        f"loss {losses[-1]:.3f}",
        "" if held_out is None else f"held-out {held_out:.3f}",
        rate(tokens_per_second),
        size(memory.resident()),
        f"{clock(seconds_left)} left",
    ]
    return "  ".join(filter(None, parts))


def sparkline(values: Sequence[float], width: int = CHART_WIDTH) -> str:
    """Values as bars, each the mean of as many neighbours as it takes to fit into so many cells."""
    if not values:
        return ""
    n = min(width, len(values))
    edges = [len(values) * i // n for i in range(n + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(_BARS[round((mean - low) / span * (len(_BARS) - 1))] for mean in means)
