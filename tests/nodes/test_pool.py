"""Nodes that join, leave, crash and refuse, over threads in place of Ray: every row has just one result."""

import threading
from collections import Counter
from typing import Any

import pytest

from edgellm.batch.slots import RowJob
from edgellm.errors import DoesNotFit, EngineError, NotServed
from edgellm.machine.child import Message, describe
from edgellm.nodes import pool as pool_module
from edgellm.nodes.model_spec import ModelPart, ModelSpec
from edgellm.nodes.pool import NodePool
from tests.nodes.threads import Scripted, ThreadCluster, run

SPEC = ModelSpec("tiny", (ModelPart("/nowhere/tiny.gguf", 10, "0" * 64),), None, {"n_slots": 2}, "1", "stamp")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "AGAIN_SECONDS", 0.0)


def results(messages: list[Message]) -> list[int]:
    return [each["result"]["key"] for each in messages if "result" in each]


def notes(messages: list[Message]) -> str:
    return "\n".join(each["note"] for each in messages if "note" in each)


def scripted(*names: str, gate: threading.Event | None = None, **how: Any) -> ThreadCluster:
    gate = gate or threading.Event()
    return ThreadCluster(*names, make=lambda name: Scripted(name, gate=gate, **how))


def filled(cluster: ThreadCluster, n_rows: int, spec: ModelSpec = SPEC) -> NodePool:
    pool = NodePool(cluster, spec)
    for key in range(n_rows):
        pool.admit(RowJob(key, prompt=f"row {key}"))
    return pool


def test_rows_are_spread_over_the_free_slots_and_counted() -> None:
    gate = threading.Event()
    cluster = scripted("n1", "n2", gate=gate)
    pool = filled(cluster, 9)
    run(pool, lambda _: sum(len(actor.worker.seen) for actor in cluster.actors) == 4)
    assert pool.state() == {"n_nodes": 2, "n_slots": 4, "cpu_seconds": 0.0, "peak_resident_bytes": 10}
    gate.set()
    messages = run(pool, lambda messages: len(results(messages)) == 9)
    assert sorted(results(messages)) == [*range(9)]
    assert pool.state()["cpu_seconds"] == 2.0 and pool.state()["peak_resident_bytes"] == 14


def test_the_rows_of_a_node_that_is_gone_go_to_one_that_joins() -> None:
    gate = threading.Event()
    cluster = scripted("n1", gate=gate)
    pool = filled(cluster, 6)
    run(pool, lambda _: any(len(actor.worker.seen) == 2 for actor in cluster.actors))
    cluster.leave("n1")
    cluster.join("n2")
    gate.set()
    messages = run(pool, lambda messages: len(results(messages)) == 6)
    assert Counter(results(messages)) == dict.fromkeys(range(6), 1)
    assert "n1 is gone; its 2 rows go to others" in notes(messages) and "n2 takes part with 2 slots" in notes(messages)


def test_a_row_that_ends_every_process_is_given_up_and_its_neighbours_are_not() -> None:
    class Poisoned(Scripted):
        def answer(self, message: bytes) -> bytes:
            if b"row 3" in message:
                cluster.crash(self.name)
            return super().answer(message)

    gate = threading.Event()
    gate.set()
    cluster = ThreadCluster("n1", make=lambda name: Poisoned(name, gate=gate))
    pool = filled(cluster, 8)
    messages = run(pool, lambda messages: len(results(messages)) == 8)
    found = {each["result"]["key"]: each["result"]["error"] for each in messages if "result" in each}
    assert sorted(found) == [*range(8)]
    assert [key for key, error in found.items() if error] == [3] and "given up" in found[3]["message"]


def test_a_node_that_cannot_open_the_model_is_left_out_once() -> None:
    error = DoesNotFit("the model needs 5 GB", why="1 GB is available")
    gate = threading.Event()
    gate.set()
    opens = {"small": {"error": describe(error)}}
    cluster = ThreadCluster("small", "n1", make=lambda name: Scripted(name, gate=gate, opens=opens.get(name)))
    pool = filled(cluster, 5)
    messages = run(pool, lambda messages: len(results(messages)) == 5)
    assert "small takes no part: the model needs 5 GB: 1 GB is available" in notes(messages)
    assert cluster.n_started == 2
    cluster.leave("n1")
    with pytest.raises(DoesNotFit, match="needs 5 GB"):
        run(pool, lambda _: False)


def test_nodes_that_lose_what_they_start_are_given_up() -> None:
    class Dying(Scripted):
        def open(self, message: bytes) -> bytes:
            cluster.crash(self.name, "out of memory")
            return super().open(message)

    cluster = ThreadCluster("n1", make=lambda name: Dying(name, gate=threading.Event()))
    with pytest.raises(EngineError, match="nothing runs on n1"):
        run(filled(cluster, 3), lambda _: False)
    assert cluster.n_started == pool_module.MOST_UNOPENED


def test_a_cluster_without_free_nodes_is_waited_for_and_then_left() -> None:
    now = [0.0]
    pool = NodePool(scripted(), SPEC, clock=lambda: now[0])
    pool.step(0)
    now[0] = pool_module.PATIENCE_SECONDS + 1
    with pytest.raises(NotServed, match="no node of the Ray cluster") as raised:
        pool.step(0)
    assert "no node with CPUs" in raised.value.why


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x80\x04K\x01.", b"{}", b'{"error": 1}', b'{"result": 1, "cpu_seconds": 0, "peak_resident_bytes": 0}',
        b'{"result": {"key": 99}, "cpu_seconds": 0, "peak_resident_bytes": 0}',
    ],
)  # fmt: skip
def test_a_node_that_talks_nonsense_is_left_out(nonsense: bytes) -> None:
    class Mad(Scripted):
        def answer(self, message: bytes) -> bytes:
            return nonsense

    gate = threading.Event()
    gate.set()
    cluster = ThreadCluster("mad", "n1", make=lambda name: (Mad if name == "mad" else Scripted)(name, gate=gate))
    messages = run(filled(cluster, 6), lambda messages: len(results(messages)) == 6)
    assert "mad takes no part" in notes(messages) and sorted(results(messages)) == [*range(6)]


@pytest.mark.parametrize(("n_cpus", "share"), [(2.0, 1.0), (5.0, 2.0), (1.0, 0.5)])
def test_several_processes_share_a_node(n_cpus: float, share: float) -> None:
    gate = threading.Event()
    gate.set()
    cluster = ThreadCluster("n1", make=lambda name: Scripted(name, gate=gate), n_cpus=n_cpus)
    spec = ModelSpec(**{**{name: getattr(SPEC, name) for name in SPEC.__slots__}, "n_actors": 2})
    pool = filled(cluster, 7, spec)
    run(pool, lambda messages: len(results(messages)) == 7)
    assert cluster.shares == [share, share]
    assert pool.state()["n_nodes"] == 1 and pool.state()["n_slots"] == 4
