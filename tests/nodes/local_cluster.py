"""A Ray cluster on this machine, in a process of its own: nodes are added and killed as a test wants.

    with LocalCluster() as cluster:
        node = cluster.add()
        edgellm("batch", ..., "--ray", cluster.address)
        cluster.kill(node)

The head has no CPUs, so no rows; each other node has one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import pytest

from edgellm.machine.child import Child, Program, open_answers, requests

needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (pip install 'edgellm[ray]')")
STORE_BYTES = 80 << 20
# A busy machine starts a node slowly.
START_SECONDS = 120


class LocalCluster:
    """A head, and nodes by number."""

    def __init__(self) -> None:
        env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
        # What the nodes of a test have in their environment.
        self.env: Mapping[str, str] = {}
        self._alive: set[int] = set()
        self._child = Child(Program([sys.executable, "-m", "tests.nodes.local_cluster"], env), name="the cluster")

    def __enter__(self) -> LocalCluster:
        try:
            self.address = self._child.receive(START_SECONDS)["address"]
        except BaseException:
            self._child.close()
            raise
        return self

    def add(self, env: Mapping[str, str] | None = None, *, cpus: int = 1) -> int:
        """Start a node; returns its number."""
        self._child.send({"add": {**self.env, **(env or {})}, "cpus": cpus})
        node = int(self._child.receive(START_SECONDS)["node"])
        self._alive.add(node)
        return node

    def kill(self, node: int) -> None:
        """End a node with all its processes, as a power cut would."""
        self._child.send({"kill": node})
        self._child.receive(START_SECONDS)
        self._alive.discard(node)

    def kill_all(self) -> None:
        """End all nodes but the head."""
        for node in [*self._alive]:
            self.kill(node)

    def __exit__(self, *_: object) -> None:
        with self._child:
            self._child.finish(START_SECONDS)


def main() -> None:
    """Do what the requests say, until there are no more."""
    answer = open_answers()
    from ray.cluster_utils import Cluster

    common: dict[str, Any] = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**common, "num_cpus": 0})
    nodes = []
    try:
        answer({"address": cluster.address})
        for request in requests():
            if "kill" in request:
                cluster.remove_node(nodes[request["kill"]], allow_graceful=False)
                answer({})
            else:
                nodes.append(cluster.add_node(**common, num_cpus=request["cpus"], env_vars=request["add"]))
                answer({"node": len(nodes) - 1})
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
