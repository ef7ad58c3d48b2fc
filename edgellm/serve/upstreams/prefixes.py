"""What the servers behind a front have in their caches, as far as the front can know: what it sent them.

    chain = Chain.of([b"system ...", b"user ..."])
    cached = CachedPrefixes(n_slots=4)
    slot = cached.take(chain)           # a request begins
    cached.release(slot)                # it is over; its prefix stays until another request takes the slot
    cached.n_bytes(longer_chain)        # how much of a request that slot has read already

A prompt is cut into pieces at its messages, and long ones every `PIECE` bytes. Each piece's hash covers everything
before it, so two chains have as much in common as they have equal hashes, which halving finds. llama-server keeps the
last prompt of each slot and gives a request the slot that shares most with it; this is the same in small.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from edgellm.serve.workers import worker

PIECE = 2048
# What comes later in a prompt decides nothing any more: a mebibyte with pieces of this size.
MOST_PIECES = 512
# A slot that shares less than this part of a prompt is as good as any other, as the workers have it.
LEAST_SHARE = float(worker.LEAST_SHARE)


@dataclass(frozen=True, slots=True)
class Chain:
    """The beginnings of a prompt: `hashes[i]` is that of its first `ends[i]` bytes.

    `identity` stays the same while a conversation grows: the hash up to the beginning of its first question.
    """

    hashes: tuple[bytes, ...] = ()
    ends: tuple[int, ...] = ()
    identity: bytes = b""

    @classmethod
    def of(cls, parts: Iterable[bytes], first_question: int = 0) -> Chain:
        """The chain of a prompt's parts; `first_question` is the index of the part that holds it."""
        hashes: list[bytes] = []
        ends: list[int] = []
        identity, n_bytes, running = b"", 0, hashlib.blake2b(digest_size=8)
        for index, part in enumerate(parts):
            running.update(len(part).to_bytes(8, "little") if len(part) < PIECE else b"long")
            for begin in range(0, max(len(part), 1), PIECE):
                if len(hashes) == MOST_PIECES:
                    return cls(tuple(hashes), tuple(ends), identity or hashes[-1])
                piece = part[begin : begin + PIECE]
                running.update(piece)
                n_bytes += len(piece)
                hashes.append(running.digest())
                ends.append(n_bytes)
                if index == first_question and not identity:
                    identity = hashes[-1]
        return cls(tuple(hashes), tuple(ends), identity)

    @property
    def n_bytes(self) -> int:
        """How long it is."""
        return self.ends[-1] if self.ends else 0

    def shared(self, other: Chain) -> int:
        """How many bytes it has in common with another, from the beginning."""
        low, high = 0, min(len(self.hashes), len(other.hashes))
        while low < high:
            middle = (low + high + 1) // 2
            if self.hashes[middle - 1] == other.hashes[middle - 1]:
                low = middle
            else:
                high = middle - 1
        return self.ends[low - 1] if low else 0


@dataclass(slots=True, eq=False)
class CachedSlot:
    """A slot: the prompt that it read last, whether it is at work, and when it began."""

    chain: Chain = field(default_factory=Chain)
    is_busy: bool = True
    used: int = 0


class CachedPrefixes:
    """The slots of one model on one server."""

    def __init__(self, n_slots: int) -> None:
        self.n_slots = n_slots
        self._slots: list[CachedSlot] = []
        self._clock = 0

    def n_bytes(self, chain: Chain) -> int:
        """How many bytes of a prompt an idle slot has read already."""
        return max((slot.chain.shared(chain) for slot in self._slots if not slot.is_busy), default=0)

    def take(self, chain: Chain) -> CachedSlot | None:
        """Give a prompt the slot that suits it best; None while all are at work and it waits."""
        self._clock += 1
        idle = [slot for slot in self._slots if not slot.is_busy]
        best = max(idle, key=lambda slot: slot.chain.shared(chain), default=None)
        if best is None or best.chain.shared(chain) < LEAST_SHARE * chain.n_bytes:
            if len(self._slots) < self.n_slots:
                best = CachedSlot()
                self._slots.append(best)
            elif idle:
                best = min(idle, key=lambda slot: slot.used)
        if best is not None:
            best.chain, best.is_busy, best.used = chain, True, self._clock
        return best

    def release(self, slot: CachedSlot | None, chain: Chain | None = None) -> None:
        """A request is over; one that waited (None) takes the slot of its `chain` now."""
        if slot is None and chain is not None:
            slot = self.take(chain)
        if slot is not None:
            slot.is_busy = False
