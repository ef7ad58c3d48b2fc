"""The workers of a server on other machines: which of them answer, what each would hold, and links to them.

crew = Crew(addresses, stamp)
crew.look()                                   # asks them all; those that do not answer are left out
plan, split = crew.plan(outline, room, how)
links = Links(split, stamp)                   # for one llama-server
links.arguments                               # what llama-server is given
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from edgellm.engine.rpc.address import Address
from edgellm.engine.rpc.hello import WorkerFacts, ask_all
from edgellm.engine.rpc.relay import Relay
from edgellm.engine.rpc.split import KEPT_HERE, Split
from edgellm.errors import WorkerLost
from edgellm.machine import memory
from edgellm.models.fit.memory import RunPlan
from edgellm.models.fit.outline import Outline
from edgellm.models.fit.split_plan import split_plan
from edgellm.serve.options import ServeOptions

log = logging.getLogger("edgellm.serve")


class Crew:
    """The workers that `--workers` names, as they were when they were last asked."""

    def __init__(self, addresses: Sequence[Address], stamp: str) -> None:
        self.stamp = stamp
        self._addresses = addresses
        self._there: list[WorkerFacts] = []

    def look(self) -> list[Exception]:
        """Ask them all; returns the errors of those that cannot be used now. This may take seconds."""
        answers = ask_all(self._addresses, self.stamp)
        self._there = [answer for answer in answers if isinstance(answer, WorkerFacts)]
        away = [answer for answer in answers if not isinstance(answer, WorkerFacts)]
        for error in away:
            log.error("%s: %s", error.what, error.why)
        return [*away]

    def plan(
        self, outline: Outline, room: memory.Room, options: ServeOptions, *, n_ctx: int | None, kv_type: str | None,
        n_threads: int,
    ) -> tuple[RunPlan, Split]:  # fmt: skip
        """The plan for a model with what is there; raises as `split_plan`."""
        return split_plan(
            outline, room, self._there, n_ctx=n_ctx, kv_type=kv_type, n_threads=n_threads, n_slots=options.n_slots,
            max_memory=options.max_memory, force=options.force, n_here=options.n_here if self._there else None,
        )  # fmt: skip


class Links:
    """The relays of one llama-server. It must be ended when `on_loss` is called: it waits for an answer for ever."""

    def __init__(self, split: Split, stamp: str) -> None:
        """Connect.

        Raises:
            WorkerLost, WorkerRefused: a worker cannot be used.
        """
        self.lost: WorkerLost | None = None
        self.on_loss: Callable[[], None] = lambda: None
        self._split = split
        self._relays: list[Relay] = []
        try:
            for share in split.workers:
                self._relays.append(Relay(share.address, stamp, on_loss=self._lose))
        except BaseException:
            self.close()
            raise

    @property
    def arguments(self) -> list[str]:
        """The options of llama-server that put the layers where they belong."""
        if not self._relays:
            return []
        devices = ",".join(f"RPC{number}" for number in range(len(self._relays)))
        return [
            "--rpc", ",".join(relay.endpoint for relay in self._relays), "--device", devices,
            "--n-gpu-layers", str(self._split.n_away + 1),
            "--tensor-split", ",".join(map(str, self._split.portions)),
            "--override-tensor", f"{KEPT_HERE}=CPU", "--no-op-offload",
        ]  # fmt: skip

    def _lose(self, error: WorkerLost) -> None:
        self.lost = self.lost or error
        self.on_loss()

    def close(self) -> None:
        """End the connections; the workers give their memory back."""
        for relay in self._relays:
            relay.close()
