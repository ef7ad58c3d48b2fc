"""The nodes that answer a batch: who opens the model, who answers which rows, who is gone.

    pool = NodePool(cluster, spec)
    pool.admit(job)
    for message in pool.step(0.1): ...      # {"result": ...}, {"note": ...}
    pool.state()                            # {"n_nodes": 3, "n_slots": 12, ...}

Nodes may join and leave at any time. The rows of a node that is gone go to others, and each row has one result. A row
that was under way when several processes died runs alone, and is given up if that ends one more.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edgellm.batch.slots import RowJob
from edgellm.errors import EdgellmError, EngineError, NotServed
from edgellm.machine.child import Message, as_raised
from edgellm.nodes.backlog import Backlog
from edgellm.nodes.cluster import ActorLost, Cluster, ClusterNode
from edgellm.nodes.messages import failed, job_message, packed, result_message, unpacked
from edgellm.nodes.model_files import chunk
from edgellm.nodes.model_spec import ModelSpec

# A piece of a model that is copied.
CHUNK = 8 << 20
# How long rows wait for a node that answers, while none is at work or opens the model.
PATIENCE_SECONDS = 60.0
# How long after the loss of an actor its node gets another one.
AGAIN_SECONDS = 2.0
# A row that so many processes died under runs alone; one more, and it fails.
MOST_SHARED_LOSSES, MOST_LOSSES = 2, 4
# Actors that a node may lose, one after another: before they have opened the model, and before they have answered a
# row, which may be what ended them.
MOST_UNOPENED, MOST_USELESS = 3, 9


@dataclass(slots=True)
class _Member:
    """An actor on a node, with the rows it answers; `n_slots` is 0 until it has opened the model."""

    place: str
    node: ClusterNode
    actor: Any
    n_slots: int = 0
    has_begun: bool = False
    jobs: dict[int, RowJob] = field(default_factory=dict)
    copied: tuple[int, int] | None = None
    cpu_first: float = 0.0
    cpu_seconds: float = 0.0
    peak_resident_bytes: int = 0


class NodePool:
    """The actors of a batch on the nodes of a cluster."""

    def __init__(self, cluster: Cluster, spec: ModelSpec, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster, self._spec, self._clock = cluster, spec, clock
        self._backlog = Backlog()
        self._members: dict[str, _Member] = {}
        # What each call is: of whom, and the row that it answers or the name of the step.
        self._calls: dict[Any, tuple[_Member, int | str]] = {}
        self._refused: dict[str, EdgellmError] = {}
        self._again: dict[str, float] = {}
        self._useless: Counter[str] = Counter()
        self._losses: Counter[int] = Counter()
        self._out: list[Message] = []
        self._gone_cpu = 0.0
        self._peak = 0
        self._idle_since = clock()

    def admit(self, job: RowJob) -> None:
        """Take a row."""
        self._backlog.add(job)

    def state(self) -> Message:
        """The numbers of now: nodes and slots that answer, and what they use."""
        ready = [member for member in self._members.values() if member.n_slots]
        cpu = sum(member.cpu_seconds - member.cpu_first for member in ready)
        peak = sum(member.peak_resident_bytes for member in ready)
        self._peak = max(self._peak, peak)
        return {
            "n_nodes": len({member.node.id for member in ready}),
            "n_slots": sum(member.n_slots for member in ready),
            "cpu_seconds": self._gone_cpu + cpu,
            "peak_resident_bytes": self._peak,
        }

    def step(self, seconds: float) -> list[Message]:
        """Give out rows and collect answers, for so long at most.

        Raises:
            NotServed: no node has answered for too long.
            EdgellmError: none of the nodes can open the model.
        """
        self._look()
        self._give_out()
        if self._calls:
            for call, outcome in self._cluster.wait(list(self._calls), seconds):
                self._ended(call, outcome)
        else:
            time.sleep(seconds)
        self._check()
        out, self._out = self._out, []
        return out

    def close(self) -> None:
        """End all actors."""
        for member in self._members.values():
            self._cluster.kill(member.actor)

    def _note(self, text: str) -> None:
        self._out.append({"note": text})

    def _look(self) -> None:
        """Start actors on nodes that are new, or have lost theirs; give up those whose node is gone."""
        n_actors, now = self._spec.n_actors, self._clock()
        nodes = self._cluster.nodes()
        alive = {node.id for node in nodes}
        for member in [member for member in self._members.values() if member.node.id not in alive]:
            self._leave(member)
        for node in nodes:
            for index in range(n_actors):
                place = f"{node.id}/{index}"
                if place in self._members or place in self._refused or now < self._again.get(place, 0.0):
                    continue
                # The slots of the model, and a few calls beside them.
                n_calls = self._spec.options.n_slots + 4
                actor = self._cluster.start(node, n_cpus=_share(node.n_cpus, n_actors), n_calls=n_calls)
                member = self._members[place] = _Member(place, node, actor)
                self._call(member, "hello", "hello")

    def _call(self, member: _Member, what: int | str, method: str, *arguments: Any) -> None:
        self._calls[self._cluster.call(member.actor, method, *arguments)] = (member, what)

    def _give_out(self) -> None:
        """Fill the free slots, a row for each node in turn."""
        free = [member for member in self._members.values() if len(member.jobs) < member.n_slots]
        while free:
            free.sort(key=lambda member: len(member.jobs) / member.n_slots)
            free = [member for member in free if len(member.jobs) < member.n_slots and self._give(member)]

    def _give(self, member: _Member) -> bool:
        """Give a member one more row; False if it gets none now."""
        if any(self._is_suspect(key) for key in member.jobs):
            return False
        job = self._backlog.take(member.place, member.n_slots)
        if job is None:
            return False
        if self._is_suspect(job.key) and member.jobs:
            self._backlog.add(job, first=True)
            return False
        member.jobs[job.key] = job
        self._call(member, job.key, "answer", packed(job_message(job)))
        return True

    def _is_suspect(self, key: int) -> bool:
        return self._losses[key] >= MOST_SHARED_LOSSES

    def _ended(self, call: Any, outcome: bytes | ActorLost) -> None:
        found = self._calls.pop(call, None)
        if found is None:
            return  # of a member that is gone
        member, what = found
        if isinstance(outcome, ActorLost):
            self._lost(member, outcome)
            return
        try:
            message = unpacked(outcome)
            if "error" in message:
                raise as_raised(message["error"])
            if isinstance(what, int):
                self._answered(member, what, message)
            else:
                self._opened(member, what, message)
        except EdgellmError as error:
            self._refuse(member, error)
        except (KeyError, TypeError, ValueError, AttributeError):
            why = repr(outcome)[:100]
            self._refuse(member, EngineError("a node of the cluster gave no sensible answer", why=why))

    def _answered(self, member: _Member, key: int, message: Message) -> None:
        result, cpu, peak = message["result"], float(message["cpu_seconds"]), int(message["peak_resident_bytes"])
        if result["key"] != key:
            raise ValueError("it answers another row")
        del member.jobs[key]
        member.cpu_seconds, member.peak_resident_bytes = cpu, peak
        self._useless[member.place] = 0
        self._losses.pop(key, None)
        self._out.append({"result": result})

    def _opened(self, member: _Member, what: str, message: Message) -> None:
        """Go on with the next step until the model is open."""
        member.has_begun = True
        if what == "hello":
            self._call(member, "open", "open", packed(self._spec.as_message()))
        elif what == "open" and not message.get("copy"):
            member.n_slots = int(message["slots"])
            member.cpu_first = member.cpu_seconds = message["cpu_seconds"]
            member.peak_resident_bytes = message["peak_resident_bytes"]
            self._note(f"{member.node.name} takes part with {member.n_slots} slot{'s' * (member.n_slots > 1)}")
        else:
            if what == "open":
                self._note(f"{member.node.name} gets a copy of the model, {self._spec.size / 1e6:,.0f} MB")
            self._send(member)

    def _send(self, member: _Member) -> None:
        """Send the next piece of the model, or let it be opened."""
        index, offset = member.copied or (0, 0)
        while index < len(self._spec.parts) and offset >= self._spec.parts[index].size:
            index, offset = index + 1, 0
        if index == len(self._spec.parts):
            self._call(member, "open", "open", packed(self._spec.as_message()))
            return
        data = chunk(self._spec, index, offset, CHUNK)
        member.copied = index, offset + len(data)
        self._call(member, "receive", "receive", index, data)

    def _drop(self, member: _Member) -> None:
        """Forget a member; its rows wait again, before all others."""
        self._members.pop(member.place, None)
        self._calls = {call: it for call, it in self._calls.items() if it[0] is not member}
        self._backlog.forget(member.place)
        for job in reversed(member.jobs.values()):
            self._backlog.add(job, first=True)
        self._gone_cpu += member.cpu_seconds - member.cpu_first
        self._cluster.kill(member.actor)

    def _refuse(self, member: _Member, error: EdgellmError) -> None:
        """A node cannot open the model, or cannot compute with it."""
        self._drop(member)
        self._refused[member.place] = error
        self._note(f"{member.node.name} takes no part: {error.what}{f': {error.why}' if error.why else ''}")

    def _lost(self, member: _Member, lost: ActorLost) -> None:
        """An actor is gone, with or without its node."""
        for key in [*member.jobs]:
            self._losses[key] += 1
            if self._losses[key] >= MOST_LOSSES:
                del member.jobs[key]
                why = f"{MOST_LOSSES} processes died while they answered it; the last time: {lost.why}"
                error = EngineError("the row was given up", why=why)
                self._out.append({"result": result_message(failed(key, error))})
        self._leave(member)
        self._useless[member.place] += 1 if member.n_slots else MOST_USELESS // MOST_UNOPENED
        self._again[member.place] = self._clock() + AGAIN_SECONDS
        if lost.is_final or self._useless[member.place] >= MOST_USELESS:
            self._refused[member.place] = EngineError(f"nothing runs on {member.node.name}", why=lost.why)
            self._note(f"{member.node.name} takes no part: {lost.why}")

    def _leave(self, member: _Member) -> None:
        """A member answers no more, through no fault of its rows."""
        if member.n_slots:
            n_rows = len(member.jobs)
            rows = f"; its {n_rows} row{'s' * (n_rows > 1)} go to others" if n_rows else ""
            self._note(f"{member.node.name} is gone{rows}")
        self._drop(member)

    def _check(self) -> None:
        """Raise if nobody can answer."""
        if any(member.n_slots or member.has_begun for member in self._members.values()):
            self._idle_since = self._clock()
            return
        places = {f"{node.id}/{index}" for node in self._cluster.nodes() for index in range(self._spec.n_actors)}
        if places and places <= self._refused.keys():
            raise next(self._refused[place] for place in sorted(places))
        if self._clock() - self._idle_since > PATIENCE_SECONDS:
            waits = f"no node was free for {PATIENCE_SECONDS:.0f} s" if places else "it has no node with CPUs"
            hint = "ray status shows what the cluster does; the same command goes on from there"
            raise NotServed("no node of the Ray cluster answers rows", why=waits, hint=hint)


def _share(n_cpus: float, n_actors: int) -> float:
    """The CPUs of each actor of a node: whole ones, where there are enough."""
    return float(int(n_cpus) // n_actors) or n_cpus / n_actors
