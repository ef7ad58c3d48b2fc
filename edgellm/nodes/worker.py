"""What answers rows on a node: the model, and a thread that computes for all rows at once.

    worker = NodeWorker()
    worker.open(packed(spec.as_message()))         # {"slots": 4, ...}, {"copy": true} or {"error": ...}
    worker.receive(0, data)                        # pieces of a copy, then `open` again
    worker.answer(packed(job_message(job)))        # blocks until the row has its answer; call it from many threads

Ray makes an actor of it; it knows nothing of Ray. Whatever goes in or out is JSON, except for the pieces of a copy.
"""

from __future__ import annotations

import os
import platform
import queue
import threading
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgellm.batch.slots import RowJob
from edgellm.errors import EdgellmError, EngineError, UsageError
from edgellm.machine import memory
from edgellm.machine.child import Message, describe
from edgellm.machine.cpu import usable_cores
from edgellm.machine.process import cpu_seconds
from edgellm.nodes.messages import failed, job_from, packed, result_message, unpacked
from edgellm.nodes.model_spec import ModelSpec
from edgellm.run.batching import Result
from edgellm.version import __version__

if TYPE_CHECKING:
    from edgellm.batch.slots import LocalSlots
    from edgellm.nodes.model_files import ModelCopy
    from edgellm.workspace import LocalModel, Workspace


@dataclass(slots=True)
class _Asked:
    """A row that waits for its answer."""

    job: RowJob
    answer: Future[Result] = field(default_factory=Future)


class NodeWorker:
    """The model of a batch on a node; `n_cpus` is how many CPUs the cluster gives it, 0 for all."""

    def __init__(self, n_cpus: float = 0.0) -> None:
        self._n_cpus = n_cpus
        self._inbox: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._copy: ModelCopy | None = None
        self._stack = ExitStack()
        self._thread: threading.Thread | None = None

    def hello(self) -> bytes:
        """Who answers: `{host, pid}`."""
        return packed({"host": platform.node(), "pid": os.getpid()})

    def open(self, message: bytes) -> bytes:
        """Open the model: `{slots, n_ctx, ...}`; `{copy}` if it must be sent first; `{error}` if it cannot be."""
        try:
            return packed(self._open(ModelSpec.from_message(unpacked(message))))
        except EdgellmError as error:
            self._stack.close()
            return packed({"error": describe(error)})

    def _open(self, spec: ModelSpec) -> Message:
        from edgellm.nodes.model_files import ModelCopy, find
        from edgellm.workspace import workspace

        here = workspace()
        if (__version__, here.stack.stamp) != (spec.version, spec.stamp):
            what = f"edgellm {__version__} ({here.stack.stamp}) is not the driver's {spec.version} ({spec.stamp})"
            raise UsageError(what, why="another version may answer differently", hint="install the same everywhere")
        here.engine()  # before a copy that would be of no use without an engine
        if self._copy is not None:
            copy, self._copy = self._copy, None
            with ExitStack() as ending:
                ending.push(copy)  # it was entered when the copy began
                local: LocalModel | None = copy.finish()
        else:
            local = find(here, spec)
        if local is None:
            self._copy = ModelCopy(here, spec).__enter__()
            return {"copy": True}
        slots = self._open_slots(here, local, spec)
        self._thread = threading.Thread(target=self._work, args=(slots,), daemon=True)
        self._thread.start()
        return {"slots": slots.plan.n_slots, "n_ctx": slots.plan.n_ctx, "path": str(local.path), **self._usage()}

    def _open_slots(self, here: Workspace, local: LocalModel, spec: ModelSpec) -> LocalSlots:
        from edgellm.api import OpenModel
        from edgellm.batch.slots import LocalSlots
        from edgellm.run.loader import with_fitting_slots

        load = spec.options
        if load.n_threads is None:
            # A share of a node that others use too is what the cluster gives us, not what the machine has.
            share = int(self._n_cpus) if self._n_cpus else usable_cores()
            load = replace(load, n_threads=max(1, min(usable_cores(), share)))
        load = load if load.force else with_fitting_slots(local.path, load)
        model = self._stack.enter_context(OpenModel(here, local, load))
        return self._stack.enter_context(LocalSlots(model))

    def receive(self, index: int, data: bytes) -> bytes:
        """Take a piece of the model's part of that number: `{}` or `{error}`."""
        try:
            if self._copy is None:
                raise UsageError("no copy is under way")
            self._copy.write(index, data)
        except (EdgellmError, OSError) as error:
            if self._copy is not None:
                copy, self._copy = self._copy, None
                copy.__exit__(type(error), error, error.__traceback__)
            known = error if isinstance(error, EdgellmError) else EngineError("the copy failed", why=str(error))
            return packed({"error": describe(known)})
        return packed({})

    def answer(self, message: bytes) -> bytes:
        """Answer a row: `{result, cpu_seconds, peak_resident_bytes}`; `{error}` if this node can answer none."""
        asked = _Asked(job_from(unpacked(message)))
        self._inbox.put(asked)
        try:
            result = asked.answer.result()
        except EdgellmError as error:
            return packed({"error": describe(error)})
        return packed({"result": result_message(result), **self._usage()})

    def _usage(self) -> Message:
        return {"cpu_seconds": cpu_seconds(), "peak_resident_bytes": memory.peak_resident()}

    def _work(self, slots: LocalSlots) -> None:
        """Compute until the end; an error of the engine is that of all rows."""
        under_way: dict[int, _Asked] = {}
        trouble: EdgellmError | None = None
        while trouble is None:
            try:
                if not self._take(slots, under_way):
                    break
                for result in slots.step():
                    under_way.pop(result.key).answer.set_result(result)
                slots.guard()
            except EdgellmError as error:
                trouble = error
            except Exception as error:  # the driver must hear of it; here it would only end a thread
                trouble = EngineError("a node failed", why=f"{type(error).__name__}: {error}")
        self._refuse(under_way, trouble or EngineError("the node was closed"))

    def _take(self, slots: LocalSlots, under_way: dict[int, _Asked]) -> bool:
        """Begin rows while there is room, and wait for one if nothing is under way; False at the end."""
        while slots.has_room:
            try:
                asked = self._inbox.get(block=not under_way)
            except queue.Empty:
                return True
            if asked is None:
                return False
            try:
                slots.admit(asked.job)
            except EdgellmError as error:
                asked.answer.set_result(failed(asked.job.key, error))
            else:
                under_way[asked.job.key] = asked
        return True

    def _refuse(self, under_way: dict[int, _Asked], error: EdgellmError) -> None:
        """Give every row this error, also those that come later."""
        for each in under_way.values():
            each.answer.set_exception(error)
        while True:
            if (asked := self._inbox.get()) is not None:
                asked.answer.set_exception(error)

    def close(self) -> bytes:
        """End the thread."""
        self._inbox.put(None)
        return packed({})
