"""What answers the rows of a batch: the slots of a loaded model, or those of a server.

with LocalSlots(model) as slots:
    slots.admit(RowJob(key=0, messages=messages, sampling=Sampling()))
    for result in slots.step(): result.text
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgellm.batch.requests import EmbeddingRow
from edgellm.documents.answers.dialogue import TokenCounter
from edgellm.engine.sampling import Sampling
from edgellm.errors import BadRequest
from edgellm.machine import memory
from edgellm.machine.process import cpu_seconds
from edgellm.models.fit.memory import RunPlan
from edgellm.run.batching import Batcher, Job, Result
from edgellm.run.generation import check_length
from edgellm.run.loader import LoadedModel
from edgellm.run.message import Message
from edgellm.run.prompt_cache import SharedPrompt
from edgellm.run.session import Session
from edgellm.wire.body import UnsupportedField


@dataclass(frozen=True, slots=True)
class RowJob:
    """A request for one answer: to `messages`, or the continuation of `prompt`, a text or tokens.

    `key` is the caller's; `retry`: after a loop, continue once, with penalties. `hint` is what the answer may look
    like.
    """

    key: int
    messages: tuple[Message, ...] = ()
    prompt: str | tuple[int, ...] = ""
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = -1
    stop: tuple[str, ...] = ()
    loop_guard: bool = True
    retry: bool = False
    hint: str = ""


class Slots(Protocol):
    """Answers several rows at once, from `__enter__` to `__exit__`."""

    @property
    def plan(self) -> RunPlan:
        """How many slots there are, and the context of each."""

    @property
    def server(self) -> str | None:
        """The address of the server whose slots they are."""

    @property
    def n_nodes(self) -> int | None:
        """How many nodes of a cluster they are on; None without a cluster."""

    @property
    def counter(self) -> TokenCounter:
        """Counts tokens of prompts."""

    @property
    def session(self) -> Session | None:
        """Renders prompts; None where the server does."""

    @property
    def busy(self) -> int:
        """Jobs under way."""

    @property
    def n_restored(self) -> int:
        """Tokens of prompts that came from disk."""

    @property
    def has_room(self) -> bool:
        """Whether another job can begin."""

    def admit(self, job: RowJob) -> None:
        """Begin a job.

        Raises:
            BadRequest, PromptTooLong, UsageError: it cannot be answered.
            NotServed: it could be answered here.
        """

    def step(self) -> list[Result]:
        """Compute once, or wait a moment; returns the jobs that are finished.

        Raises:
            NotServed: the server is gone; jobs under way have no result.
        """

    @property
    def pooled(self) -> bool:
        """Whether the model turns texts into vectors, instead of answering."""

    def vectors(self, request: EmbeddingRow) -> tuple[npt.NDArray[np.float32], list[list[int]]]:
        """The vectors [n_inputs, n_embd] of a request's inputs, each of length 1, and the inputs' tokens.

        Raises:
            BadRequest: the model makes no vectors, or an input is too long or no token of it.
        """

    def guard(self) -> None:
        """Call this between steps; raises `DoesNotFit` when the memory is used up."""

    @property
    def cpu_seconds(self) -> float:
        """CPU time of what computes, so far."""

    @property
    def peak_resident_bytes(self) -> int:
        """The most memory of what computes, so far."""

    def __enter__(self) -> Slots:
        """Open them."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the jobs under way, and give everything back."""


class LocalSlots:
    """The slots of a model in this process; between two computations the model is free."""

    server = None
    n_nodes = None

    def __init__(self, model: LoadedModel, plan: RunPlan | None = None) -> None:
        """`plan` says how many slots there are, and how long each is; by default it is the model's own."""
        self.model = model
        self.plan = plan or model.plan
        self.counter = self.session = Session(model)
        self._batcher: Batcher | None = None
        self._shared: SharedPrompt | None = None
        self._stack = ExitStack()

    def __enter__(self) -> LocalSlots:
        if self.pooled:
            _ = self.model.embedder
            return self
        plan = self.plan
        sequences = self.model.weights.open_sequences(
            n_seq=plan.n_slots, n_ctx=plan.n_ctx, n_batch=plan.n_batch, n_threads=plan.n_threads,
            n_threads_batch=plan.n_threads_batch, type_k=plan.kv_type, type_v=plan.kv_type,
            flash_attention=plan.flash_attention,
        )  # fmt: skip
        opened = self._stack.enter_context(self.model.holding(sequences))
        prompts = self.model.open_prompts(plan, plan.n_slots)
        self._shared = SharedPrompt(prompts, opened) if prompts else None
        speculation = self.model.speculation
        costs = speculation.costs if speculation else None
        self._batcher = Batcher(self.model.weights, opened, costs=costs, shared=self._shared)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is None and self._shared and self.model.is_open:
                self._shared.keep()

    @property
    def n_restored(self) -> int:
        """Tokens of prompts that came from disk."""
        return self._shared.restored if self._shared else 0

    @property
    def pooled(self) -> bool:
        """Whether it is an embedding model."""
        return self.model.info.pooled

    @property
    def busy(self) -> int:
        """Jobs under way."""
        return self._batcher.busy if self._batcher else 0

    @property
    def has_room(self) -> bool:
        """Whether another one can begin; vectors are made at once, so there is always room for those."""
        return self._batcher is None or self._batcher.busy < self._batcher.n_slots

    def admit(self, job: RowJob) -> None:
        """Begin a job; raises `BadRequest`, `PromptTooLong` or `UsageError` if it cannot be answered."""
        if self._batcher is None:
            raise BadRequest(f"{self.model.name} is an embedding model", why="it turns texts into vectors")
        prompt = self._tokens(job)
        check_length(len(prompt), self.plan.n_ctx)
        hint = self.model.weights.tokenize(job.hint, bos=False) if job.hint else ()
        self._batcher.admit(
            Job(job.key, prompt, job.sampling, job.max_tokens, job.stop, job.loop_guard, job.retry, hint)
        )

    def _tokens(self, job: RowJob) -> list[int]:
        if job.messages:
            return self.session.turn(job.messages).prompt
        if isinstance(job.prompt, tuple):
            self._check_tokens(job.prompt)
            return list(job.prompt)
        return self.model.weights.tokenize(job.prompt)

    def _check_tokens(self, tokens: tuple[int, ...]) -> None:
        if (largest := max(tokens)) >= (n_vocab := self.model.info.n_vocab):
            raise BadRequest(f"{largest} is not a token of this model", why=f"it has {n_vocab:,}, counted from 0")

    def step(self) -> list[Result]:
        """Compute once."""
        if self._batcher is None or not self._batcher.busy:
            return []
        with self.model.computing():
            return self._batcher.step()

    def vectors(self, request: EmbeddingRow) -> tuple[npt.NDArray[np.float32], list[list[int]]]:
        """The vectors of some texts, and their tokens; raises `BadRequest` if there are none, or of another size."""
        info = self.model.info
        if info.pooled and request.dimensions not in (None, info.n_embd):
            what = f"dimensions: the vectors of this model have {info.n_embd} numbers"
            raise UnsupportedField(what, field="dimensions")
        for tokens in request.inputs:
            if isinstance(tokens, tuple):
                self._check_tokens(tokens)
        return embed(self.model, request.inputs)

    def guard(self) -> None:
        """Raises `DoesNotFit` when the memory is used up."""
        self.model.guard()

    @property
    def cpu_seconds(self) -> float:
        """CPU time of this process."""
        return cpu_seconds()

    @property
    def peak_resident_bytes(self) -> int:
        """The most memory of this process."""
        return memory.peak_resident()


def embed(
    model: LoadedModel, inputs: Collection[str | tuple[int, ...]]
) -> tuple[npt.NDArray[np.float32], list[list[int]]]:
    """The vectors [n_inputs, n_embd] of some texts, or of their tokens, and the tokens.

    Raises:
        BadRequest: it is not an embedding model, or a text is longer than it reads.
    """
    weights = model.weights
    if not model.info.pooled:
        raise BadRequest(f"{model.name} is not an embedding model", why="it generates text")
    if model.info.ranks:
        raise BadRequest(f"{model.name} is not an embedding model", why="it says how well texts answer a question")
    embedder, texts = model.embedder, []
    for each in inputs:
        tokens = weights.tokenize_input(each) if isinstance(each, str) else list(each)
        if len(tokens) > embedder.n_ctx:
            why = f"the model reads {embedder.n_ctx:,} at most; edgellm never cuts a text silently"
            raise BadRequest(f"an input has {len(tokens):,} tokens", why=why)
        texts.append(tokens)
    with model.computing():
        groups = [embedder.embed(group) for group in _groups(texts, embedder.n_seq, embedder.n_ctx)]
    return np.concatenate(groups) if groups else np.empty((0, model.info.n_embd), np.float32), texts


def _groups(texts: list[list[int]], most_texts: int, most_tokens: int) -> Iterator[list[list[int]]]:
    """Groups of as many texts as fit into one computation."""
    group: list[list[int]] = []
    for tokens in texts:
        if len(group) == most_texts or sum(map(len, group)) + len(tokens) > most_tokens:
            yield group
            group = []
        group.append(tokens)
    if group:
        yield group
