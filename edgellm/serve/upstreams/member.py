"""One upstream of a front: whether it answers, what it said last, and what the front has under way there.

member = Member(Link(url, key=None, via=front), front)
await member.look()
member.seconds_until_first_token(asked)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from edgellm.errors import EdgellmError
from edgellm.serve.upstreams.asked import RequestedModel
from edgellm.serve.upstreams.link import Link, Lost
from edgellm.serve.upstreams.prefixes import CachedPrefixes
from edgellm.serve.upstreams.snapshot import Snapshot
from edgellm.serve.watch.status import LOADED, ModelStatus

# How many questions in a row may stay without an answer before nothing is expected of it any more.
MOST_FAILURES = 3
# Until something is known: how fast prompts are read (tokens per second), how long an answer takes (seconds).
PREFILL_RATE, ANSWER_SECONDS = 100.0, 4.0
BYTES_PER_TOKEN = 4.0
LOAD_SECONDS = 5.0
# Answers that are computed at once slow each other down: by half of an answer's time where all slots are at work.
CROWDED = 0.5
# How much the latest answer moves the usual time of one.
WEIGHT = 0.1
MOST_SLOTS = 256


class Member:
    """An upstream. `problem` says why it gets no requests; empty where it does."""

    def __init__(self, link: Link, front: str) -> None:
        self.link = link
        self._front = front
        self.snapshot = Snapshot()
        self.problem = "it has not been asked yet"
        self.is_known = False
        self.n_failures = 0
        self.in_flight: dict[str, int] = {}
        # What others have under way there, by model: all that it has, less what we had when it said so.
        self._others: dict[str, int] = {}
        self._prefixes: dict[str, CachedPrefixes] = {}
        self._answer_seconds: dict[str, float] = {}
        self.answered = self.lost = self.refused = self.hits = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return self.link.url

    @property
    def is_up(self) -> bool:
        """Whether it gets requests."""
        return not self.problem

    async def look(self) -> None:
        """Ask for its status. One that is silent for a while loses what is under way there."""
        before = dict(self.in_flight)
        try:
            self._note(Snapshot.read(await self.link.json("/status.json")), before)
        except Lost as error:
            self.failed(error)
            if self.n_failures >= MOST_FAILURES and not error.is_closed:
                self.link.abandon()
        except EdgellmError as error:
            self.problem = error.what

    def failed(self, error: Lost) -> None:
        """Nothing came back: it gets no request until it answers a question for its status.

        One that was only late, as busy machines are, is given some more chances.
        """
        self.n_failures += 1
        if not error.is_late or self.n_failures >= MOST_FAILURES:
            self.problem = error.why

    def _note(self, found: Snapshot, before: Mapping[str, int] = MappingProxyType({})) -> None:
        """Take over a status; `before` are the front's requests by model when it was asked for."""
        if self._front in found.fronts:
            self.problem = "it leads back to this front"
            return
        if (found.pid, found.started) != (self.snapshot.pid, self.snapshot.started):
            self._prefixes.clear()  # another process, with empty caches
        self.snapshot, self.n_failures, self.problem, self.is_known = found, 0, "", True
        self._others = {
            name: max(0, model.in_flight - max(before.get(name, 0), self.in_flight.get(name, 0)))
            for name, model in found.models.items()
        }

    def may_have(self, name: str) -> bool:
        """Whether it has, or had when it was last asked, a model of that name."""
        return self.snapshot.has(name) if self.is_known else True

    def cached_bytes(self, asked: RequestedModel) -> int:
        """How much of a prompt an idle slot of it has read already, in bytes."""
        prefixes = self._prefixes.get(asked.model or "")
        return prefixes.n_bytes(asked.chain) if prefixes else 0

    def seconds_until_first_token(self, asked: RequestedModel) -> float:
        """The time until a request would get its first token here, roughly: waiting, loading, reading."""
        name = asked.model or ""
        model = self._model(name)
        n_slots = self._n_slots(model)
        usual = self._answer_seconds.get(name, ANSWER_SECONDS)
        busy = self.in_flight.get(name, 0) + self._others.get(model.name if model else name, 0)
        waiting = max(0, busy + 1 - n_slots)
        rate = (model.prefill_rate if model else None) or PREFILL_RATE
        read = (asked.chain.n_bytes - self.cached_bytes(asked)) / BYTES_PER_TOKEN / rate
        load = LOAD_SECONDS if model and model.state != LOADED else 0.0
        return load + read + usual * (waiting + CROWDED * min(busy, n_slots)) / n_slots

    @contextlib.contextmanager
    def answering(self, asked: RequestedModel) -> Iterator[None]:
        """Count a request while it is under way, and remember what is read for it."""
        name = asked.model or ""
        prefixes = self._prefixes.get(name)
        if prefixes is None or prefixes.n_slots != self._n_slots(self._model(name)):
            prefixes = self._prefixes[name] = CachedPrefixes(self._n_slots(self._model(name)))
        slot = prefixes.take(asked.chain) if asked.chain.hashes else None
        self.in_flight[name] = self.in_flight.get(name, 0) + 1
        try:
            yield
        finally:
            self.in_flight[name] -= 1
            prefixes.release(slot, asked.chain if asked.chain.hashes else None)

    def answered_in(self, asked: RequestedModel, seconds: float, *, is_hit: bool) -> None:
        """A request has its answer; `is_hit`: the front expected its beginning to be cached."""
        name = asked.model or ""
        before = self._answer_seconds.get(name, ANSWER_SECONDS)
        self._answer_seconds[name] = before + WEIGHT * (seconds - before)
        self.answered += 1
        self.hits += is_hit

    def _model(self, name: str) -> ModelStatus | None:
        return self.snapshot.model(name) or next(iter(self.snapshot.models.values()), None)

    def _n_slots(self, model: ModelStatus | None) -> int:
        return min(max(model.n_slots if model else 1, 1), MOST_SLOTS)
