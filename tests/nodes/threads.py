"""A cluster whose nodes are threads of this process: the pool's other side without Ray, lost whenever a test wants."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgellm.batch.slots import RowJob
from edgellm.machine.child import Message
from edgellm.nodes.cluster import ActorLost, ClusterNode
from edgellm.nodes.messages import job_from, packed, result_message, unpacked
from edgellm.nodes.pool import NodePool
from edgellm.run.batching import Result


@dataclass(eq=False)
class Actor:
    """A worker on a node, and its calls."""

    node: ClusterNode
    worker: Any
    calls: list[concurrent.futures.Future[bytes | ActorLost]] = field(default_factory=list)


class ThreadCluster:
    """`make` makes the worker of a node; each node has so many CPUs."""

    def __init__(self, *names: str, make: Callable[[str], Any], n_cpus: float = 2.0) -> None:
        self._nodes = [ClusterNode(name, name, n_cpus) for name in names]
        self._make = make
        self.actors: list[Actor] = []
        self.n_started = 0
        self.shares: list[float] = []

    def nodes(self) -> Sequence[ClusterNode]:
        return self._nodes

    def join(self, name: str) -> None:
        """A node joins."""
        self._nodes.append(ClusterNode(name, name, 2.0))

    def leave(self, name: str) -> None:
        """A node is gone, with what ran on it."""
        self._nodes = [node for node in self._nodes if node.id != name]
        self.crash(name)

    def crash(self, name: str, why: str = "killed") -> None:
        """What runs on a node is gone; the node stays."""
        for actor in [actor for actor in self.actors if actor.node.id == name]:
            self.actors.remove(actor)
            for call in actor.calls:
                with contextlib.suppress(concurrent.futures.InvalidStateError):  # it has just answered
                    call.set_result(ActorLost(why))

    def start(self, node: ClusterNode, *, n_cpus: float, n_calls: int) -> Actor:
        self.n_started += 1
        self.shares.append(n_cpus)
        actor = Actor(node, self._make(node.id))
        self.actors.append(actor)
        return actor

    def call(self, actor: Actor, method: str, *arguments: Any) -> Any:
        call: concurrent.futures.Future[bytes | ActorLost] = concurrent.futures.Future()
        if actor not in self.actors:
            call.set_result(ActorLost("killed"))
            return call
        actor.calls.append(call)

        def work() -> None:
            outcome = getattr(actor.worker, method)(*arguments)
            with contextlib.suppress(concurrent.futures.InvalidStateError):  # the node is gone
                call.set_result(outcome)

        threading.Thread(target=work, daemon=True).start()
        return call

    def wait(self, calls: Sequence[Any], seconds: float) -> list[tuple[Any, bytes | ActorLost]]:
        done, _ = concurrent.futures.wait(calls, seconds, concurrent.futures.FIRST_COMPLETED)
        return [(call, call.result()) for call in calls if call in done]

    def kill(self, actor: Actor) -> None:
        if actor in self.actors:
            self.actors.remove(actor)


class Scripted:
    """A worker that answers with the prompt itself as soon as `open_gate` lets it."""

    def __init__(self, name: str, *, gate: threading.Event, n_slots: int = 2, opens: Message | None = None) -> None:
        self.name, self.gate, self.seen = name, gate, list[RowJob]()
        self._opens = opens or {"slots": n_slots, "n_ctx": 256, "cpu_seconds": 1.0, "peak_resident_bytes": 5}

    def hello(self) -> bytes:
        return packed({"host": self.name, "pid": 1})

    def open(self, message: bytes) -> bytes:
        return packed(self._opens)

    def answer(self, message: bytes) -> bytes:
        job = job_from(unpacked(message))
        self.seen.append(job)
        self.gate.wait(20)
        result = Result(job.key, f"{job.prompt!s}", "stop", 1, 0, 1, 0.0, 0.0)
        return packed({"result": result_message(result), "cpu_seconds": 2.0, "peak_resident_bytes": 7})


def run(pool: NodePool, until: Callable[[list[Message]], bool], steps: int = 2000) -> list[Message]:
    """Step a pool until its messages are what is wanted."""
    messages: list[Message] = []
    for _ in range(steps):
        messages += pool.step(0.01)
        if until(messages):
            return messages
    raise AssertionError(f"it does not come to that: {messages[-5:]}")
