"""Rows that wait for a node; a node gets those whose beginning it has already read.

    backlog = Backlog()
    backlog.add(job)
    job = backlog.take("node-1")         # the best for this node, None if nothing waits
    backlog.forget("node-1")             # it is gone, with what it had read

A node copies the beginning of a prompt from a slot that holds it, so what counts are the rows that it got last, one
for each slot. Beginnings are compared at a few lengths; a row that others have overtaken too often goes next.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

from edgellm.batch.slots import RowJob

# The lengths at which beginnings are compared, in characters: less than 256 is computed as fast as it is copied.
LENGTHS = (256, 1024, 4096, 16384)
# How often others may overtake a row, and how many rows are looked at.
MOST_OVERTAKEN, MOST_LOOKED_AT = 64, 512


@dataclass(slots=True)
class _Waiting:
    """A row that waits: its beginnings, the shortest first, and how often others overtook it."""

    job: RowJob
    beginnings: tuple[bytes, ...]
    overtaken: int = 0


class Backlog:
    """Rows in the order in which they came, and what each node has read."""

    def __init__(self) -> None:
        self._rows: dict[int, _Waiting] = {}
        self._read: dict[str, deque[tuple[bytes, ...]]] = {}
        self._holders: dict[bytes, Counter[str]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, job: RowJob, *, first: bool = False) -> None:
        """Let a row wait; with `first` before all others."""
        row = _Waiting(job, beginnings(job))
        if first:
            self._rows = {job.key: row, **self._rows}
        else:
            self._rows[job.key] = row

    def take(self, node: str, n_slots: int = 1) -> RowJob | None:
        """The row that suits a node of so many slots best."""
        best, most = None, -len(LENGTHS) - 1
        for _, row in zip(range(MOST_LOOKED_AT), self._rows.values(), strict=False):
            if row.overtaken >= MOST_OVERTAKEN:
                best = row
                break
            if (gain := self._gain(row, node)) > most:
                best, most = row, gain
        if best is None:
            return None
        for row in self._overtaken_by(best):
            row.overtaken += 1
        del self._rows[best.job.key]
        self._note(node, n_slots, best.beginnings)
        return best.job

    def forget(self, node: str) -> None:
        """A node is gone, with what it had read."""
        for each in self._read.pop(node, ()):
            self._drop(node, each)

    def _gain(self, row: _Waiting, node: str) -> int:
        """How much more of a row this node has read than any other."""
        own = others = 0
        for level, each in enumerate(row.beginnings, 1):
            holders = self._holders.get(each)
            if holders is None:
                break
            own = level if node in holders else own
            others = level if len(holders) > (node in holders) else others
        return own - others

    def _overtaken_by(self, row: _Waiting) -> Iterator[_Waiting]:
        for each in self._rows.values():
            if each is row:
                return
            yield each

    def _note(self, node: str, n_slots: int, read: tuple[bytes, ...]) -> None:
        """A node reads a row; in as many slots it holds as many rows."""
        held = self._read.setdefault(node, deque())
        held.append(read)
        for each in read:
            self._holders.setdefault(each, Counter())[node] += 1
        while len(held) > n_slots:
            self._drop(node, held.popleft())

    def _drop(self, node: str, read: tuple[bytes, ...]) -> None:
        for each in read:
            holders = self._holders[each]
            holders[node] -= 1
            if not holders[node]:
                del holders[node]
            if not holders:
                del self._holders[each]


def beginnings(job: RowJob) -> tuple[bytes, ...]:
    """Digests of a job's first characters, at each of the lengths that it has."""
    if job.messages:
        text = "\0".join(f"{message['role']}\0{message['content']}" for message in job.messages)
    else:
        text = job.prompt if isinstance(job.prompt, str) else " ".join(map(str, job.prompt))
    reached = [length for length in LENGTHS if length <= len(text)]
    return tuple(hashlib.sha256(text[:length].encode("utf-8", "replace")).digest()[:16] for length in reached)
