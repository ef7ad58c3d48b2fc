"""How often conversations find their beginning cached: the front's choice against others, simulated.

    python -m tests.serve.upstreams.affinity    # writes docs/explanation/affinity.svg and prints the figures

The servers are simulated: slots, a queue, the time to read what is not cached and to write an answer. The front is the
real one: `Fleet.choose` over `Member`s, which learn of the servers what their status would say. Each client has one
conversation after the other; all of them begin with the same system message.
"""

from __future__ import annotations

import heapq
import itertools
import random
import sys
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean

from edgellm.report.charts.chart import ChartValue, sheet
from edgellm.report.charts.points import Series, point_chart
from edgellm.serve.upstreams.asked import RequestedModel
from edgellm.serve.upstreams.fleet import Fleet
from edgellm.serve.upstreams.member import Member
from edgellm.serve.upstreams.prefixes import CachedPrefixes, CachedSlot, Chain
from edgellm.serve.upstreams.snapshot import Snapshot

PICTURE = Path(__file__).parents[3] / "docs" / "explanation" / "affinity.svg"
MODEL, N_SLOTS, N_TURNS = "m", 4, 6
# Of BitNet's 2B-4T shape on two cores of a Zen 4, tokens per second; answers that are written together.
PREFILL, DECODE = 156.0, 34.0
TOGETHER = 2.8 / N_SLOTS
SYSTEM, QUESTION, ANSWER, THINKING = 300, 80, 120, 20.0
BYTES_PER_TOKEN = 4


@dataclass
class SimulatedServer:
    """A server: what its slots hold, who waits, and who is answered."""

    slots: CachedPrefixes = field(default_factory=lambda: CachedPrefixes(N_SLOTS))
    queue: deque[Turn] = field(default_factory=deque)
    n_busy: int = 0


@dataclass
class Turn:
    """A request: its prompt, its number in its conversation, and what ends with it."""

    number: int
    asked: RequestedModel
    then: Callable[[float], None]
    server: int = 0
    slot: CachedSlot | None = None
    open: ExitStack = field(default_factory=ExitStack)
    began: float = 0.0


@dataclass
class Figures:
    """Of turns after the first: how much of the prompt was cached, and the seconds until the first token."""

    cached: list[float] = field(default_factory=list)
    hits: list[bool] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


Choose = Callable[["Simulation", Turn], int]


class Simulation:
    """So many clients at so many servers, for so many turns."""

    def __init__(self, n_servers: int, n_clients: int, choose: Choose, seed: int = 1) -> None:
        self.servers = [SimulatedServer() for _ in range(n_servers)]
        self.fleet = Fleet([f"http://s{n}:1" for n in range(n_servers)], key=None)
        self.draw = random.Random(seed)
        self.figures = Figures()
        self._choose, self._n_clients = choose, n_clients
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._names = itertools.count()
        model = {"name": MODEL, "kind": "chat", "state": "loaded", "n_slots": N_SLOTS, "prefill_rate": PREFILL}
        for n, member in enumerate(self.fleet.members):
            member._note(Snapshot.read({"pid": n, "started": 1.0, "models": [model]}))

    def run(self, n_turns: int) -> Figures:
        """The figures of so many turns; the first fifth warms up and does not count."""
        for client in range(self._n_clients):
            self._later(self.draw.expovariate(1 / THINKING), self._conversation(client))
        for number in range(n_turns):
            if not self._events:
                break
            if number == n_turns // 5:
                self.figures = Figures()
            now, _, happens = heapq.heappop(self._events)
            happens(now)
        return self.figures

    def _later(self, when: float, happens: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), happens))

    def _conversation(self, client: int) -> Callable[[float], None]:
        name = next(self._names)
        parts = [b"s" * SYSTEM * BYTES_PER_TOKEN]

        def ask(number: int) -> Callable[[float], None]:
            def happens(now: float) -> None:
                parts.append(f"{name}:{number} ".encode().ljust(QUESTION * BYTES_PER_TOKEN, b"q"))
                asked = RequestedModel(MODEL, Chain.of(parts, 1))
                parts.append(f"{name}:{number} ".encode().ljust(ANSWER * BYTES_PER_TOKEN, b"a"))
                self._arrive(Turn(number, asked, lambda later: self._next(later, client, number, ask)), now)

            return happens

        return ask(0)

    def _next(self, now: float, client: int, number: int, ask: Callable[[int], Callable[[float], None]]) -> None:
        pause = self.draw.expovariate(1 / THINKING)
        self._later(now + pause, ask(number + 1) if number + 1 < N_TURNS else self._conversation(client))

    def _arrive(self, turn: Turn, now: float) -> None:
        turn.server, turn.began = self._choose(self, turn), now
        turn.open.enter_context(self.fleet.members[turn.server].answering(turn.asked))
        server = self.servers[turn.server]
        server.queue.append(turn)
        self._begin(server, now)

    def _begin(self, server: SimulatedServer, now: float) -> None:
        while server.queue and server.n_busy < N_SLOTS:
            turn = server.queue.popleft()
            chain = turn.asked.chain
            cached = server.slots.n_bytes(chain)
            turn.slot = server.slots.take(chain)
            server.n_busy += 1
            read = (chain.n_bytes - cached) / BYTES_PER_TOKEN / PREFILL
            if turn.number:
                self.figures.cached.append(cached / chain.n_bytes)
                self.figures.hits.append(cached > (SYSTEM + QUESTION) * BYTES_PER_TOKEN * 0.99)
                self.figures.seconds.append(now + read - turn.began)
            slowed = 1 if server.n_busy == 1 else server.n_busy / (1 + (server.n_busy - 1) * TOGETHER)
            self._later(now + read + ANSWER / DECODE * slowed, partial(self._end, server, turn))

    def _end(self, server: SimulatedServer, turn: Turn, now: float) -> None:
        server.slots.release(turn.slot)
        server.n_busy -= 1
        self.fleet.members[turn.server].answered_in(turn.asked, now - turn.began, is_hit=False)
        turn.open.close()
        turn.then(now)
        self._begin(server, now)


def front(simulation: Simulation, turn: Turn) -> int:
    """What the real front chooses."""
    member = simulation.fleet.choose(turn.asked)
    assert isinstance(member, Member)
    return simulation.fleet.members.index(member)


def at_random(simulation: Simulation, _: Turn) -> int:
    """Any server."""
    return simulation.draw.randrange(len(simulation.servers))


def least_busy(simulation: Simulation, _: Turn) -> int:
    """The server with the fewest requests, as many balancers do."""
    load = [server.n_busy + len(server.queue) for server in simulation.servers]
    return simulation.draw.choice([n for n, each in enumerate(load) if each == min(load)])


CHOICES: dict[str, Choose] = {"the front": front, "least busy": least_busy, "at random": at_random}
SERVERS = (1, 2, 4, 8, 16, 32)
PER_SLOT = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)


def figures(n_servers: int, per_slot: float, choose: Choose, n_turns: int = 20_000) -> Figures:
    """The figures with so many conversations for each slot."""
    return Simulation(n_servers, max(1, round(n_servers * N_SLOTS * per_slot)), choose).run(n_turns)


def main() -> None:
    """Simulate, print, draw."""
    over_servers, over_load, waits = [], [], []
    for name, choose in CHOICES.items():
        found = {n: figures(n, 1.0, choose) for n in SERVERS}
        over_servers.append(Series(name, {n: ChartValue(100 * mean(each.cached)) for n, each in found.items()}))
        loads = {load: figures(8, load, choose) for load in PER_SLOT}
        over_load.append(Series(name, {load: ChartValue(100 * mean(each.cached)) for load, each in loads.items()}))
        waits.append(Series(name, {load: ChartValue(mean(each.seconds)) for load, each in loads.items()}))
        for what, each in [
            *((f"{n} servers", f) for n, f in found.items()),
            *((f"load {n}", f) for n, f in loads.items()),
        ]:
            sys.stdout.write(
                f"{name:11} {what:10} cached {mean(each.cached):.2f} hit {mean(each.hits):.2f} "
                f"first token {mean(each.seconds):.2f} s\n"
            )
    charts = [
        point_chart("prompt tokens that are cached, over servers", over_servers, "servers", "%"),
        point_chart("the same with 8 servers, over conversations", over_load, "conversations per slot", "%"),
        point_chart("seconds until the first token, 8 servers", waits, "conversations per slot", "s"),
    ]
    subtitle = f"Simulated: {N_SLOTS} slots a server, {N_TURNS} turns, a system message of {SYSTEM} tokens"
    PICTURE.write_text(sheet("Where conversations are sent", subtitle, charts), encoding="utf-8")


if __name__ == "__main__":
    main()
