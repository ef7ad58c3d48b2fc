"""Ray: the cluster's nodes, an actor on each, and calls that end in bytes or in the loss of the actor.

    with RayCluster.connect("auto") as cluster:
        actor = cluster.start(cluster.nodes()[0], n_cpus=2, n_calls=8)
        call = cluster.call(actor, "hello")
        for call, outcome in cluster.wait([call], 0.1): ...

This process belongs to Ray: it ends it when the cluster is gone, which is why `driver` is a child process. An actor is
bound to its node and dies with this process.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgellm.errors import NetworkError, UsageError
from edgellm.nodes.worker import NodeWorker

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_MISSING = re.compile(r"No module named '[\w.]+'")
# How often to ask which nodes there are.
LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ClusterNode:
    """A node that is alive: its id, how to call it, and how many CPUs the cluster may use there."""

    id: str
    name: str
    n_cpus: float


@dataclass(frozen=True, slots=True)
class ActorLost:
    """A call has no outcome: the actor is gone, or could not begin. `is_final`: it would not do better again."""

    why: str
    is_final: bool = False


class Cluster(Protocol):
    """What the pool needs of a cluster; handles of actors and calls are opaque."""

    def nodes(self) -> Sequence[ClusterNode]:
        """The nodes that are alive, as far as it is known at the moment."""

    def start(self, node: ClusterNode, *, n_cpus: float, n_calls: int) -> Any:
        """An actor on a node, which takes so many calls at once."""

    def call(self, actor: Any, method: str, *arguments: Any) -> Any:
        """Begin a call."""

    def wait(self, calls: Sequence[Any], seconds: float) -> list[tuple[Any, bytes | ActorLost]]:
        """Calls that have ended, as soon as one has, and how."""

    def kill(self, actor: Any) -> None:
        """End an actor."""


class RayCluster:
    """A connection to a Ray cluster; a thread looks which nodes there are, because the question may block."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._actor = ray.remote(NodeWorker)
        self._nodes: tuple[ClusterNode, ...] = ()
        self._closed = threading.Event()
        self._look()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @classmethod
    def connect(cls, address: str) -> RayCluster:
        """The cluster at an address, HOST:PORT of its head, or `auto`: that of this machine.

        Raises:
            NetworkError: there is none.
            UsageError: it runs another version of Ray or Python.
        """
        import ray

        try:
            ray.init(address=address, namespace="edgellm", log_to_driver=False, logging_level="ERROR")
        except ConnectionError as error:
            why, hint = str(error).strip().split("\n")[0], "ray start --head, or --ray HOST:PORT"
            raise NetworkError(f"no Ray cluster is found ({address})", why=why, hint=hint) from error
        except RuntimeError as error:
            words = " ".join(str(error).split())
            if "ersion mismatch" in words:
                what = "the cluster has another version of Ray or Python than this edgellm"
                raise UsageError(what, why=words[:400], hint="install the same versions on every node") from error
            raise NetworkError(f"the Ray cluster at {address} cannot be used", why=words[:400]) from error
        except Exception as error:  # Ray's own errors have no common class here
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
            raise NetworkError(f"the Ray cluster at {address} cannot be used", why=why) from error
        return cls(ray)

    def nodes(self) -> Sequence[ClusterNode]:
        """The nodes that were alive a moment ago and have CPUs."""
        return self._nodes

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            with contextlib.suppress(Exception):  # the last answer holds until there is another
                self._look()

    def _look(self) -> None:
        found = []
        for node in self._ray.nodes():
            n_cpus = float(node["Resources"].get("CPU", 0))
            if node["Alive"] and n_cpus > 0:
                host, address = node["NodeManagerHostname"], node["NodeManagerAddress"]
                name = address if host == address else f"{host} ({address})"
                found.append(ClusterNode(node["NodeID"], name, n_cpus))
        self._nodes = tuple(found)

    def start(self, node: ClusterNode, *, n_cpus: float, n_calls: int) -> Any:
        """An actor that only this node may have."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        where = NodeAffinitySchedulingStrategy(node.id, soft=False)
        how = self._actor.options(
            num_cpus=n_cpus, max_concurrency=n_calls, max_restarts=0, max_task_retries=0, scheduling_strategy=where
        )
        return how.remote(n_cpus)

    def call(self, actor: Any, method: str, *arguments: Any) -> Any:
        """Begin a call of the actor."""
        return getattr(actor, method).remote(*arguments)

    def wait(self, calls: Sequence[Any], seconds: float) -> list[tuple[Any, bytes | ActorLost]]:
        """The calls that have ended, as soon as one has."""
        ready, _ = self._ray.wait(list(calls), num_returns=1, timeout=seconds)
        if ready:
            more, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=0)
            ready = more or ready
        return [(call, self._outcome(call)) for call in ready]

    def _outcome(self, call: Any) -> bytes | ActorLost:
        try:
            outcome = self._ray.get(call, timeout=30)
        except Exception as error:  # whatever it was, this actor has no answer
            words = " ".join(_COLOURS.sub("", str(error)).split())
            if missing := _MISSING.search(words):
                return ActorLost(f"edgellm is not whole in the Python of its Ray: {missing[0]}", is_final=True)
            # What went wrong stands at the end of a traceback, and elsewhere at the beginning.
            return ActorLost(words[-300:] if "creation task" in words else words[:300])
        return outcome if isinstance(outcome, bytes) else ActorLost("it gave no sensible answer", is_final=True)

    def kill(self, actor: Any) -> None:
        """End an actor; it may be gone already."""
        with contextlib.suppress(Exception):
            self._ray.kill(actor)

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        with contextlib.suppress(Exception):
            self._ray.shutdown()
