"""The slots of a server as those of a batch: each row is a request, answered by a thread of its own.

    with RemoteSlots(model, find, n_slots=4, patience=30) as slots:
        slots.admit(RowJob(key=0, messages=messages))
        for result in slots.step(): result.text

Others may use the server too: a batch takes the slots that they leave, and always one. While the server is away or its
worker is started again, rows wait; after `patience` seconds the batch is given up, and `NotServed` raised.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

from edgellm.batch.slots import RowJob
from edgellm.errors import BadRequest, EdgellmError, NotServed, PromptTooLong
from edgellm.run.batching import Result
from edgellm.run.events import End, Looped, Text, TokenCounts
from edgellm.run.generation import Limits
from edgellm.run.message import Message
from edgellm.serve.remote.model import RemoteModel

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgellm.batch.requests import EmbeddingRow

# How long a step waits for an answer.
STEP_SECONDS = 0.1
# How often to look who else uses the server, and whether it is back.
LOOK_SECONDS, AGAIN_SECONDS = 0.5, 1.0
# How often a row may lose the server in the middle of its answer: it may be what ends the worker.
MOST_LOST = 4
CLOSE_SECONDS = 5.0
# Answers that say that the row is wrong, and not that the server has no time.
ROWS_OWN = (
    HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.INTERNAL_SERVER_ERROR,
)  # fmt: skip


@dataclass(slots=True)
class _Row:
    """A job in progress: whether its answer has begun, and how often the server was lost in the middle of one."""

    job: RowJob
    closed: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    has_begun: bool = False
    n_lost: int = 0


class RemoteSlots:
    """Up to `n_slots` slots of a server.

    `find` finds the model again after a failure, None where there is none now; with `must` there is no other way to
    answer a row.
    """

    pooled = False
    session = None
    n_nodes = None
    # What came from disk is the server's to count.
    n_restored = 0

    def __init__(
        self, model: RemoteModel, find: Callable[[], RemoteModel | None], *, n_slots: int, patience: float,
        must: bool = False,
    ) -> None:  # fmt: skip
        self.model = model
        self.plan = replace(model.plan, n_slots=min(n_slots, model.plan.n_slots))
        self._find, self._patience, self._must = find, patience, must
        self._rows: dict[int, _Row] = {}
        self._ended: queue.SimpleQueue[tuple[_Row, Result | Exception]] = queue.SimpleQueue()
        # Rows that wait for the server, since when, and why.
        self._waiting: list[_Row] = []
        self._away_since: float | None = None
        self._why = ""
        self._asked_again = self._looked = 0.0
        self._others = self._others_before = 0
        self._cpu_last = self._number("cpu_seconds")
        self.cpu_seconds = 0.0
        self.peak_resident_bytes = int(self._number("peak_resident_bytes"))

    def __enter__(self) -> RemoteSlots:
        return self

    def __exit__(self, *_: object) -> None:
        rows = list(self._rows.values())
        self._rows.clear()
        for row in rows:
            row.closed.set()
        for row in rows:
            if row.thread is not None:
                row.thread.join(CLOSE_SECONDS)
        self._look(at_once=True)

    @property
    def server(self) -> str:
        """The server's address."""
        return self.model.server

    @property
    def counter(self) -> RemoteSlots:
        """Counts tokens of prompts at the server."""
        return self

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that these messages make; raises `NotServed`."""
        return self._counted(lambda: self.model.count_tokens(messages))

    def count(self, text: str) -> int:
        """Tokens of a text; raises `NotServed`."""
        return self._counted(lambda: self.model.count(text))

    def _counted(self, count: Callable[[], int]) -> int:
        try:
            return count()
        except EdgellmError as error:
            raise self._given_up(error.what) from None

    @property
    def busy(self) -> int:
        """Jobs under way."""
        return len(self._rows)

    @property
    def has_room(self) -> bool:
        """Whether the server has a slot for another job that nobody else needs."""
        if self._waiting:
            return False
        self._look()
        return self.busy < max(1, min(self.plan.n_slots, self.model.plan.n_slots - self._others))

    def admit(self, job: RowJob) -> None:
        """Send a job.

        Raises:
            NotServed: it is a text to continue, in which a server reads the names of control tokens as these tokens.
        """
        if not job.messages and isinstance(job.prompt, str) and not self._must:
            raise NotServed("a row continues a text as it is, which a server reads in another way")
        row = self._rows[job.key] = _Row(job)
        self._send(row)

    def _send(self, row: _Row) -> None:
        row.has_begun = False
        row.thread = threading.Thread(target=self._work, args=(row, self.model), daemon=True)
        row.thread.start()

    def _work(self, row: _Row, model: RemoteModel) -> None:
        try:
            self._ended.put((row, _answer(row, model)))
        except Exception as error:
            self._ended.put((row, error))

    def step(self) -> list[Result]:
        """Wait a moment for answers.

        Raises:
            NotServed: the server has been away for too long.
        """
        self._look()
        self._ask_again()
        results: list[Result] = []
        with contextlib.suppress(queue.Empty):
            results += self._end(*self._ended.get(timeout=STEP_SECONDS))
            while True:
                results += self._end(*self._ended.get_nowait())
        return results

    def _end(self, row: _Row, outcome: Result | Exception) -> list[Result]:
        """The result of a row whose thread has ended; none if it is to be sent again."""
        if isinstance(outcome, Result):
            self._away_since = None
        elif not isinstance(outcome, EdgellmError):
            raise outcome
        elif isinstance(outcome, PromptTooLong) or outcome.facts.get("status") in ROWS_OWN:
            outcome = _failed(row.job.key, outcome)
        else:
            row.n_lost += row.has_begun
            if row.n_lost < MOST_LOST:
                self._wait(row, outcome)
                return []
            outcome = _failed(row.job.key, outcome)
        self._rows.pop(row.job.key, None)
        return [outcome]

    def _wait(self, row: _Row, error: EdgellmError) -> None:
        self._waiting.append(row)
        self._why = error.why or error.what
        if self._away_since is None or row.has_begun:
            self._away_since = self._asked_again = time.monotonic()

    def _ask_again(self) -> None:
        """Send the rows that wait once the server is back."""
        now = time.monotonic()
        if not self._waiting or now - self._asked_again < AGAIN_SECONDS:
            return
        self._asked_again = now
        found = None
        with contextlib.suppress(EdgellmError):
            found = self._find()
        if found is not None and found.about == self.model.about:  # another model may have taken its name
            self.model = found
            waiting, self._waiting = self._waiting, []
            for row in waiting:
                self._send(row)
        if self._away_since is not None and now - self._away_since > self._patience:
            raise self._given_up(self._why)

    def _given_up(self, why: str) -> NotServed:
        hint = "the same command goes on from there; --server never loads the model here"
        return NotServed(f"the server at {self.server} answers no more rows", why=why, hint=hint)

    def _look(self, *, at_once: bool = False) -> None:
        """See what others ask of the server, and what its worker uses."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS and not at_once:
            return
        self._looked = now
        with contextlib.suppress(EdgellmError):
            self.model.look()
        others = max(0, int(self._number("in_flight")) - self.busy)
        # A row of ours that has just ended may still be counted: twice in a row is somebody else.
        self._others, self._others_before = min(others, self._others_before), others
        used = self._number("cpu_seconds")
        self.cpu_seconds += max(0.0, used - self._cpu_last)
        self._cpu_last = used
        self.peak_resident_bytes = max(self.peak_resident_bytes, int(self._number("peak_resident_bytes")))

    def _number(self, name: str) -> float:
        value = self.model.status.get(name)
        return value if isinstance(value, (int, float)) else 0

    def vectors(self, request: EmbeddingRow) -> tuple[npt.NDArray[np.float32], list[list[int]]]:
        """Refuse: the server's model is one that chats."""
        raise BadRequest(f"{self.model.name} is not an embedding model", why="it generates text")

    def guard(self) -> None:
        """Nothing to guard: the memory is the server's."""


def _answer(row: _Row, model: RemoteModel) -> Result:
    """The answer to a row, whole."""
    job = row.job
    limits = Limits(job.max_tokens, row.closed.is_set, None, job.loop_guard, job.retry, job.stop)
    pieces: list[str] = []
    looped, end = False, End("interrupted")
    for event in model.events(list(job.messages) or job.prompt, job.sampling, limits):
        row.has_begun = True
        match event:
            case Text(text):
                pieces.append(text)
            case Looped(kept_tokens=kept):
                looped = True
                del pieces[kept:]
            case End():
                end = event
    tokens = end.tokens or TokenCounts(0, len(pieces), 0)
    seconds = {name: end.timings.get(name, 0.0) / 1000 for name in ("prompt_ms", "predicted_ms")}
    return Result(
        key=job.key,
        text="".join(pieces),
        finish_reason="length" if end.reason == "context" else end.reason,
        prompt_tokens=tokens.prompt,
        reused_tokens=tokens.cached,
        # What repeats itself is no part of the answer.
        completion_tokens=len(pieces) if looped else tokens.completion,
        prefill_seconds=seconds["prompt_ms"],
        decode_seconds=seconds["predicted_ms"],
    )


def _failed(key: int, error: EdgellmError) -> Result:
    return Result(key, "", "error", 0, 0, 0, 0.0, 0.0, error)
