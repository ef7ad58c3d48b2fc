"""Requests through slots: prompts, seeds, forms, second attempts; and texts to vectors.

    with Scheduler(LocalSlots(model), options) as scheduler:
        scheduler.begin(key=0, row=1, request=request)
        for request, result in scheduler.step(): result.text

A batch file and rows in memory are answered by the same scheduler.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edgellm.batch.requests import EmbeddingRow, TextRow
from edgellm.batch.slots import RowJob, Slots
from edgellm.batch.tool_steps import SlotStep, SlotSteps, answer_steps
from edgellm.documents.answers.options import MOST_ANSWER
from edgellm.engine.sampling import Sampling, shifted
from edgellm.errors import AnswerMismatch, BadRequest, EdgellmError, NotServed
from edgellm.run.batching import Result
from edgellm.run.message import Message
from edgellm.run.structure import Structure, from_schema
from edgellm.tools.rounds import ToolRounds

if TYPE_CHECKING:
    from edgellm.documents.answers.dialogue import Consultation, QuestionSource
    from edgellm.documents.answers.question import DocumentAnswer
    from edgellm.run.events import Returned
    from edgellm.tools.in_use import ToolsInUse


class DocumentSources(Protocol):
    """Opens collections of documents, each once."""

    def open(self, name: str) -> QuestionSource:
        """The documents of that name; `CollectionNotFound` if there are none."""

    def close(self) -> None:
        """Close all that are open."""


class ToolSets(Protocol):
    """Opens tools by their names, each set once."""

    def open(self, names: Sequence[str]) -> ToolsInUse:
        """The tools of these names; `UsageError` if one of them is not there."""

    def close(self) -> None:
        """Close all that are open."""


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Defaults for rows.

    `name` is the model's name in the output; requests may use any of `names`. `structure` is for rows without a
    response_format. `retries` is how often to draw an answer of the wrong form again; 1 or more also lets an answer
    that repeats itself continue once from before the loop. `documents` are what rows may ask; `docs` names those for
    rows that name none, and `document_sampling` is for answers from them. `toolsets` opens the tools that rows may
    call; `tools` are those of rows that name none.
    """

    name: str
    names: Collection[str]
    sampling: Sampling
    max_tokens: int = -1
    system: str | None = None
    raw: bool = False
    retries: int = 0
    loop_guard: bool = True
    structure: Structure | None = None
    documents: DocumentSources | None = None
    docs: str | None = None
    document_sampling: Sampling | None = None
    toolsets: ToolSets | None = None
    tools: tuple[str, ...] = ()


class Finished(NamedTuple):
    """A request that is finished, its answer or error, and what of the answer stands in documents, if it asked any.

    `n_forgotten` earlier messages found no room beside the passages. `calls` are what its tools returned.
    """

    request: TextRow
    result: Result
    found: DocumentAnswer | None = None
    n_forgotten: int = 0
    calls: Sequence[Returned] = ()


@dataclass(slots=True)
class _Pending:
    """A request in progress."""

    request: TextRow
    job: RowJob
    structure: Structure | None
    asked: Consultation | None = None
    attempts: int = 0
    tools: _RowTools | None = None


@dataclass(slots=True)
class _RowTools:
    """The steps of an answer that may call tools, its calls, and the results of the steps before the last one."""

    steps: SlotSteps
    rounds: ToolRounds
    earlier: list[Result] = field(default_factory=list)


class Scheduler:
    """Answers requests in slots, from `__enter__` to `__exit__`.

    `n_prompt`, `n_reused`, `n_generated`, `n_drafted` and `n_accepted` count tokens, those of attempts that failed too.
    """

    def __init__(self, slots: Slots, options: BatchOptions) -> None:
        self.slots = slots
        self.options = options
        self.n_prompt = self.n_reused = self.n_generated = self.n_drafted = self.n_accepted = 0
        self._pending: dict[int, _Pending] = {}
        # Requests that need no model.
        self._ready: list[Finished] = []
        self._stack = ExitStack()

    def __enter__(self) -> Scheduler:
        with ExitStack() as stack:
            # Documents and tools that rows name are opened by the first.
            if self.options.toolsets is not None:
                stack.callback(self.options.toolsets.close)
                if self.options.tools:
                    self.options.toolsets.open(self.options.tools)
            if (documents := self.options.documents) is not None:
                stack.callback(documents.close)
                if self.options.docs:
                    documents.open(self.options.docs)
            stack.enter_context(self.slots)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def busy(self) -> int:
        """Requests in progress."""
        return len(self._pending) + len(self._ready)

    @property
    def has_room(self) -> bool:
        """Whether another one can begin."""
        return self.slots.has_room

    def begin(self, key: int, row: int, request: TextRow) -> None:
        """Begin to answer a request; `row` counts from 1 and sets its seed.

        Raises:
            BadRequest, PromptTooLong, UsageError, CollectionNotFound: it cannot be answered.
            NotServed: it could be answered here.
        """
        options = self.options
        if self.slots.pooled:
            raise BadRequest(f"{options.name} is an embedding model", why="it turns texts into vectors")
        structure = from_schema(request.schema) if request.schema else options.structure
        max_tokens = options.max_tokens if request.max_tokens is None else request.max_tokens
        asked, usual = None, options.sampling
        if docs := options.docs if request.docs is None else request.docs:
            max_tokens = MOST_ANSWER if max_tokens < 0 else max_tokens
            asked, usual = self._consult(request, docs, structure, max_tokens), options.document_sampling or usual
            if not asked.messages:
                found = asked.question.answer()
                self._ready.append(Finished(request, Result(key, found.answer, "stop", 0, 0, 0, 0.0, 0.0), found))
                return
        # Each row has its own seed, and keeps it when the batch resumes.
        seeded = replace(usual, seed=shifted(usual.seed, row))
        sampling = replace(seeded, **request.sampling)
        if structure is not None:
            sampling = structure.constrain(sampling)
        if names := options.tools if request.tools is None else request.tools:
            self._begin_with_tools(key, request, names, sampling, structure, max_tokens)
            return
        guard = options.loop_guard if request.loop_guard is None else request.loop_guard
        messages = asked.messages if asked else self._messages(request) if request.is_chat else []
        job = RowJob(
            key, tuple(messages), request.prompt, sampling, max_tokens, request.stop, guard, options.retries > 0,
            structure.hint if structure else "",
        )  # fmt: skip
        self.slots.admit(job)
        self._pending[key] = _Pending(request, job, structure, asked)

    def _begin_with_tools(
        self,
        key: int,
        request: TextRow,
        names: tuple[str, ...],
        sampling: Sampling,
        structure: Structure | None,
        max_tokens: int,
    ) -> None:
        """Begin the first step of an answer that may call tools."""
        options = self.options
        if options.toolsets is None:
            raise BadRequest("tools cannot be called here")
        if request.docs or (request.docs is None and options.docs):
            raise BadRequest("documents and tools are two ways to answer", why="the tool documents searches them")
        if not request.is_chat or request.messages[-1]["role"] != "user":
            raise BadRequest("tools are for the last message of a chat, which is the user's")
        session = self.slots.session
        if session is None:
            raise NotServed("a server answers by itself", why="tools are called here")
        messages = self._messages(request)
        rounds = options.toolsets.open(names).rounds(messages[-1]["content"], session.count)
        n_ctx = self.slots.plan.n_ctx
        steps = answer_steps(session, messages, rounds, sampling, n_ctx=n_ctx, max_tokens=max_tokens)
        pending = _Pending(request, self._job_of(key, request, next(steps)), structure)
        pending.tools = _RowTools(steps, rounds)
        self.slots.admit(pending.job)
        self._pending[key] = pending

    def _job_of(self, key: int, request: TextRow, step: SlotStep) -> RowJob:
        """One step as a job."""
        guard = self.options.loop_guard if request.loop_guard is None else request.loop_guard
        stop = () if step.is_call else request.stop
        retry = not step.is_call and self.options.retries > 0
        return RowJob(key, (), tuple(step.prompt), step.sampling, step.max_tokens, stop, guard, retry)

    def _next_step(self, pending: _Pending, result: Result) -> Result | None:
        """Go on with an answer that may call tools; its whole result when there are no more steps."""
        tools = pending.tools
        if tools is None or result.error is not None:
            return result
        try:
            step = tools.steps.send(result.text)
            pending.job = self._job_of(result.key, pending.request, step)
            self.slots.admit(pending.job)
        except StopIteration as end:
            n_drawn = sum(each.completion_tokens for each in tools.earlier)
            return replace(result, text=end.value, completion_tokens=result.completion_tokens + n_drawn)
        except EdgellmError as error:
            return replace(result, error=error)
        tools.earlier.append(result)
        self._pending[result.key] = pending
        return None

    def _consult(self, request: TextRow, docs: str, structure: Structure | None, max_tokens: int) -> Consultation:
        """Put the question of a row to documents."""
        from edgellm.documents.answers.dialogue import consult

        documents = self.options.documents
        if documents is None:
            raise BadRequest("documents cannot be asked here")
        if not request.is_chat or request.messages[-1]["role"] != "user":
            raise BadRequest("documents answer the last message of a chat, which is the user's")
        if structure is not None:
            raise BadRequest("an answer from documents is plain text", why="it cannot have a schema or grammar")
        return consult(
            documents.open(docs), self._messages(request), self.slots.counter, n_ctx=self.slots.plan.n_ctx,
            most_answer=max_tokens,
        )  # fmt: skip

    def _messages(self, request: TextRow) -> list[Message]:
        """The messages of a chat, with the batch's system message where it has none."""
        messages = list(request.messages)
        if self.options.system is not None and messages[0]["role"] != "system":
            messages.insert(0, Message(role="system", content=self.options.system))
        return messages

    def step(self) -> list[Finished]:
        """Compute once; returns the requests that are finished by it, each with its answer or its error."""
        ready, self._ready = self._ready, []
        results = self.slots.step() if self._pending else []
        return [*ready, *(done for result in results if (done := self._checked(result)) is not None)]

    def _checked(self, result: Result) -> Finished | None:
        """Check an answer against its schema; None if it is retried, because another draw may help."""
        pending = self._pending.pop(result.key)
        self.n_prompt += result.prompt_tokens
        self.n_reused += result.reused_tokens
        self.n_generated += result.completion_tokens
        self.n_drafted += result.drafted_tokens
        self.n_accepted += result.accepted_tokens
        whole = self._next_step(pending, result)
        if whole is None:
            return None
        result, calls = whole, pending.tools.rounds.returned if pending.tools else ()
        error = result.error
        if error is None and pending.structure is not None:
            try:
                pending.structure.check(result.text)
            except AnswerMismatch as mismatch:
                error = mismatch
        may_retry = pending.attempts < self.options.retries and pending.job.sampling.temperature > 0
        if error is not None and may_retry and pending.tools is None:
            error = self._again(pending)
            if error is None:
                return None
        if pending.asked is not None and error is None:
            found = pending.asked.question.answer(result.text, has_ended=result.finish_reason == "stop")
            return Finished(pending.request, replace(result, text=found.answer), found, pending.asked.n_forgotten)
        return Finished(pending.request, replace(result, error=error), calls=calls)

    def _again(self, pending: _Pending) -> EdgellmError | None:
        """Draw with another seed, in the slot that has just become free; returns an error if that fails."""
        pending.attempts += 1
        sampling = replace(pending.job.sampling, seed=shifted(pending.job.sampling.seed, 1))
        pending.job = replace(pending.job, sampling=sampling)
        try:
            self.slots.admit(pending.job)
        except EdgellmError as error:  # its grammar turned out to be too complex
            return error
        self._pending[pending.job.key] = pending
        return None

    def embed(self, request: EmbeddingRow) -> tuple[npt.NDArray[np.float32], list[list[int]]]:
        """The vectors [n_inputs, n_embd] of a request's inputs, each of length 1, and the inputs' tokens.

        Raises:
            BadRequest: the model makes no vectors, or none of the size that is asked for; or an input is too long.
        """
        vectors, texts = self.slots.vectors(request)
        self.n_prompt += sum(map(len, texts))
        return vectors, texts
