"""The slots of all nodes of a Ray cluster as those of a batch; Ray itself runs in a child process.

    with NodeSlots("auto", spec, plan, say=print) as slots:
        slots.admit(RowJob(key=0, messages=messages))
        for result in slots.step(): result.text

More rows are taken than there are slots, so that a node that becomes free finds one with a beginning that it knows.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgellm.batch.slots import RowJob
from edgellm.errors import BadRequest, EdgellmError, NetworkError, NotServed
from edgellm.machine.child import Child, ChildFailed, Message, module
from edgellm.models.fit.memory import RunPlan
from edgellm.nodes.address import require_answer
from edgellm.nodes.messages import job_message, result_from
from edgellm.nodes.model_spec import ModelSpec
from edgellm.run.batching import Result
from edgellm.run.message import Message as ChatMessage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgellm.batch.requests import EmbeddingRow

# How long a step waits for an answer.
STEP_SECONDS = 0.1
# How long Ray may take to connect, and how long its process may be silent afterwards.
CONNECT_SECONDS, SILENT_SECONDS = 45.0, 60.0
# How long it may take to leave the cluster.
CLOSE_SECONDS = 10.0
# Rows that wait for a slot: at least so many, and as many as the slots times that.
LEAST_WAITING, WAITING_SHARE = 32, 2


class NodeSlots:
    """The slots of the nodes of a cluster, from `__enter__` to `__exit__`."""

    pooled = False
    session = None
    server = None
    # What came from disk is not counted.
    n_restored = 0

    def __init__(
        self, address: str, spec: ModelSpec, plan: RunPlan, *, say: Callable[[str], None] = lambda _: None
    ) -> None:
        """`address` is that of the head, or `auto`; `plan` has the context of every slot."""
        self._address, self._spec, self._say = address, spec, say
        self.plan = replace(plan, n_slots=0)
        self.n_nodes: int | None = 0
        self.cpu_seconds, self.peak_resident_bytes = 0.0, 0
        self._keys: set[int] = set()
        self._child: Child | None = None
        self._heard = 0.0

    def __enter__(self) -> NodeSlots:
        """Connect to the cluster.

        Raises:
            NetworkError: it cannot be reached.
            UsageError: it has another version of Ray or Python.
        """
        require_answer(self._address)
        child = self._child = Child(module("edgellm.nodes.driver", self._address), name="Ray's driver")
        try:
            child.send(self._spec.as_message())
            child.receive(CONNECT_SECONDS)
        except ChildFailed as error:
            child.close()
            why = "no Ray is there, or this machine is no node of its cluster"
            hint = "ray start --address HOST:PORT makes it one; ray status shows what is there"
            raise NetworkError(f"the Ray cluster at {self._address} does not answer", why=why, hint=hint) from error
        except BaseException:
            child.close()
            raise
        self._heard = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        child = self._child
        if child is None:
            return
        with child, contextlib.suppress(EdgellmError, OSError):  # it is killed then, and its actors end all the same
            child.finish(CLOSE_SECONDS)

    @property
    def counter(self) -> NodeSlots:
        """Counts tokens of prompts: not here."""
        return self

    def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        """Refuse: the vocabulary is on the nodes."""
        raise BadRequest("documents cannot be asked on a cluster")

    def count(self, text: str) -> int:
        """Refuse, as `count_tokens` does."""
        raise BadRequest("documents cannot be asked on a cluster")

    @property
    def busy(self) -> int:
        """Rows that are under way or wait for a slot."""
        return len(self._keys)

    @property
    def has_room(self) -> bool:
        """Whether another row can be taken."""
        n_slots = self.plan.n_slots
        return self.busy < n_slots + max(LEAST_WAITING, WAITING_SHARE * n_slots)

    def admit(self, job: RowJob) -> None:
        """Send a row to the cluster; whether it can be answered is found out there."""
        if self._child is None:
            raise NotServed("the cluster is closed")
        self._keys.add(job.key)
        self._child.send(job_message(job))

    def step(self) -> list[Result]:
        """Wait a moment for answers.

        Raises:
            NotServed: the cluster is gone; rows under way have no answer.
            EdgellmError: no node can open the model.
        """
        child, results = self._child, list[Result]()
        if child is None:
            raise NotServed("the cluster is closed")
        try:
            message = child.poll(STEP_SECONDS)
            while message is not None:
                self._heard = time.monotonic()
                results += self._took(message)
                message = child.poll(0)
        except ChildFailed as error:
            # The last words of Ray's process are about its log files.
            raise self._gone("its head does not answer" if "GCS" in error.why else error.why) from error
        if time.monotonic() - self._heard > SILENT_SECONDS:
            raise self._gone(f"nothing was heard of it for {SILENT_SECONDS:.0f} s")
        return results

    def _took(self, message: Message) -> list[Result]:
        """Note what the driver says; the result in it."""
        if "note" in message:
            self._say(message["note"])
        if (state := message.get("state")) is not None:
            self.n_nodes, n_slots = state["n_nodes"], state["n_slots"]
            self.plan = replace(self.plan, n_slots=n_slots)
            self.cpu_seconds, self.peak_resident_bytes = state["cpu_seconds"], state["peak_resident_bytes"]
        if "result" not in message or (key := message["result"]["key"]) not in self._keys:
            return []
        self._keys.remove(key)
        return [result_from(message["result"])]

    def _gone(self, why: str) -> NotServed:
        hint = "ray status shows whether it is there; the same command goes on from there"
        return NotServed(f"the Ray cluster at {self._address} is gone", why=why, hint=hint)

    def vectors(self, request: EmbeddingRow) -> tuple[npt.NDArray[np.float32], list[list[int]]]:
        """Refuse: the model is one that writes text."""
        raise BadRequest(f"{self._spec.name} is not an embedding model", why="it generates text")

    def guard(self) -> None:
        """Nothing to guard: the memory is the nodes'."""
