"""What a pass over several tokens costs: how often as long as a pass over one it takes on this machine.

    costs = DraftCosts.careful("avx2")
    costs.times(n_context=500)[4]           # 2.7: four rows cost 2.7 times what one costs
    costs.observe(4, 500, seconds=0.06)     # what a pass took, and it learns

Reading the weights costs the same for one row as for many, computing with them and attention do not; so the cost grows
with the rows and with the context. It starts from a careful table, or from what was kept, and every pass corrects it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgellm.run.drafts import MOST_ROWS

# The rows whose cost is kept, between which it is interpolated, at an empty context and at CONTEXT tokens or more.
ROWS = (2, 4, 8, 16)
CONTEXT = 2048
Table = tuple[tuple[float, ...], tuple[float, ...]]
# Upper quarters of what five models took on AVX-512 VNNI, and on the other levels, which gain less by several rows. A
# full context adds 4 to 6 % on AVX-512 VNNI (2B-4T's shape); on the others it was measured with an older attention.
VNNI: Table = ((1.5, 2.1, 3.2, 5.5), (1.6, 2.2, 3.4, 5.8))
OTHER: Table = ((1.8, 2.7, 4.7, 7.5), (1.95, 3.1, 5.5, 9.5))
# How much a pass corrects its own rows and, at least, all others; and how far from the expected it may seem to be.
LEARNED, SPREAD, MOST_SURPRISE = 0.1, 0.2, 2.0
# Of the time of a pass over one row, the share that the last one has.
RECENT = 0.15
# Contexts of so many tokens are one to the table.
STEP = 64


class DraftCosts:
    """The costs of one model with one number of threads.

    `n_observed` counts the passes with drafts that it learnt from.
    """

    def __init__(self, table: Table) -> None:
        """`table` holds the costs of `ROWS` at an empty context, and at `CONTEXT`.

        Raises:
            ValueError: it does not have that form, or its numbers are no costs.
        """
        self.n_observed = 0
        self._one = 0.0  # seconds of a pass over one row, lately
        self._table = [[_cost(cost, rows) for cost, rows in zip(side, ROWS, strict=True)] for side in table]
        if len(self._table) != 2:
            raise ValueError("costs at two contexts are needed")
        self._times: dict[int, list[float]] = {}

    @classmethod
    def careful(cls, level: str) -> DraftCosts:
        """What to expect before anything was measured, by the level of the kernels."""
        return cls(VNNI if level in ("avx512-vnni", "amx") else OTHER)

    def __str__(self) -> str:
        """The table as llama-server takes it (EDGELLM_DRAFT_COSTS)."""
        return ",".join(f"{cost:g}" for side in self.table for cost in side)

    @property
    def table(self) -> Table:
        """What to keep."""
        empty, full = (tuple(round(cost, 4) for cost in side) for side in self._table)
        return empty, full

    def times(self, n_context: int) -> Sequence[float]:
        """The costs of 0 to `MOST_ROWS` rows after so many tokens, in passes over one row."""
        step = min(n_context, CONTEXT) // STEP
        if (found := self._times.get(step)) is None:
            share = step * STEP / CONTEXT
            known = [1.0, *(empty + share * (full - empty) for empty, full in zip(*self._table, strict=True))]
            found = [0.0, 1.0]
            for index, rows in enumerate(ROWS):
                before = rows // 2
                for row in range(before + 1, rows + 1):
                    found.append(known[index] + (known[index + 1] - known[index]) * (row - before) / before)
            self._times[step] = found
        return found

    def observe(self, n_rows: int, n_context: int, seconds: float) -> None:
        """Learn from a pass over so many rows of one sequence, after `n_context` tokens."""
        if n_rows == 1:
            # A pass that something else delayed says little.
            usual = min(seconds, MOST_SURPRISE * self._one) if self._one else seconds
            self._one += (usual - self._one) * (RECENT if self._one else 1.0)
        elif self._one > 0 and n_rows <= MOST_ROWS:
            self.n_observed += 1
            ratio = seconds / self._one / self.times(n_context)[n_rows]
            surprise = math.log(min(max(ratio, 1 / MOST_SURPRISE), MOST_SURPRISE))
            self._correct(n_rows, min(n_context, CONTEXT) / CONTEXT, LEARNED * surprise)

    def _correct(self, n_rows: int, share: float, step: float) -> None:
        for side, near in zip(self._table, (1 - share, share), strict=True):
            least = 1.0
            for index, rows in enumerate(ROWS):
                weight = max(SPREAD, near * max(0.0, 1 - abs(math.log2(n_rows / rows))))
                # Several rows never cost less than fewer, nor much more than one by one.
                side[index] = least = max(least, min(side[index] * math.exp(weight * step), 1.25 * rows))
        self._times.clear()


def _cost(cost: float, rows: int) -> float:
    if isinstance(cost, bool) or not isinstance(cost, (int, float)) or not 1 <= cost <= 2 * rows:
        raise ValueError(f"{cost!r} is no cost of {rows} rows")
    return float(cost)
