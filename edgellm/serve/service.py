"""What the endpoints work with: the models, and the way from a question to an answer.

model = service.model("smollm2:latest")
async with service.pool.lease(model.name, ModelKind.CHAT) as worker:
    await service.respond(worker, question, words, out)
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from starlette.requests import Request

from edgellm.errors import EngineError
from edgellm.models.local.store import LATEST
from edgellm.run.events import Event
from edgellm.run.loops import LoopGuard
from edgellm.serve.answer.cached import HEADER, CachedAnswers, replay
from edgellm.serve.answer.check import AnswerCheck
from edgellm.serve.answer.from_documents import AskedDocuments, ask
from edgellm.serve.answer.grammar_trial import GrammarTrial
from edgellm.serve.answer.guard import Guard, without_tokens
from edgellm.serve.answer.prepare import COUNT_TOKENS, Question, begun_answer, has_one_answer, prepare
from edgellm.serve.answer.reader import read
from edgellm.serve.answer.required_call import as_calls, by_grammar, must_call, required_form
from edgellm.serve.answer.tools_and_schema import answering, call_or_answer, calling, has_both
from edgellm.serve.answer.truncation import shortened
from edgellm.serve.answer.whole import Whole
from edgellm.serve.answer.with_tools import AnswerWithTools
from edgellm.serve.answer.words import Words
from edgellm.serve.documents.store import DocumentScope, VectorStore
from edgellm.serve.documents.stores import VectorStores
from edgellm.serve.http.origins import is_forwarded, is_own_page
from edgellm.serve.http.problems import Problem
from edgellm.serve.http.response import Output
from edgellm.serve.metrics import Metrics
from edgellm.serve.options import ServeOptions
from edgellm.serve.scoring.pool import ScoringPool
from edgellm.serve.tools.served import AskedTools, ServedTools
from edgellm.serve.tools.wanted import WantedTools
from edgellm.serve.workers.catalog import ModelKind, ServedModel
from edgellm.serve.workers.pool import Pool
from edgellm.serve.workers.upstream import TOO_LONG, Chunk, UpstreamRefused
from edgellm.serve.workers.worker import Worker


@dataclass(frozen=True, slots=True)
class Service:
    """A server's parts; `chats` is the file of saved chats if it shares them, `answers` the answer cache if it has one.

    `documents` are the stores of documents that it offers, None if it offers none; `tools` likewise those that it runs
    for its clients. `started` is in seconds since 1970.
    """

    options: ServeOptions
    pool: Pool
    scoring: ScoringPool
    trial: GrammarTrial
    metrics: Metrics
    chats: Path | None = None
    documents: VectorStores | None = None
    answers: CachedAnswers | None = None
    tools: ServedTools | None = None
    started: float = field(default_factory=time.time)

    def model(self, name: str | None, *kinds: ModelKind) -> ServedModel:
        """The model of that name; without a name the first one of these kinds."""
        if name is not None:
            return self.pool.catalog.get(name)
        able = [model for model in self.pool.catalog if not kinds or model.kind in kinds]
        if not able:
            raise Problem(400, "no model here can do this; name one in model", code="missing-field", field="model")
        return able[0]

    def documents_for(self, request: Request) -> VectorStores | None:
        """The documents that a request may use: without --docs they are for the server's own page and programs here."""
        headers = request.headers
        is_open = self.options.documents is not None or (is_own_page(headers) and not is_forwarded(headers))
        return self.documents if is_open else None

    async def asked(self, request: Request, name: str | None) -> tuple[ServedModel, DocumentScope | None]:
        """The chat model of that name; of MODEL@COLLECTION, the model and the documents that it answers from.

        Raises:
            ModelNotFound, CollectionNotFound, Problem: there is none.
        """
        model, at, collection = (name or "").removesuffix(LATEST).rpartition("@")
        documents = self.documents_for(request)
        if not at or documents is None or name in {each.name for each in self.pool.catalog}:
            return self.model(name, ModelKind.CHAT), None
        chosen = self.model(model)
        store = await documents.work(documents.named, collection)
        return chosen, DocumentScope(store)

    async def listed_stores(self) -> list[VectorStore]:
        """The stores that every client may know of: those of a server that was started with --docs."""
        if self.documents is None or self.options.documents is None:
            return []
        return await self.documents.work(self.documents.all)

    async def with_documents(self) -> list[tuple[str, ServedModel]]:
        """The names MODEL@COLLECTION that clients can choose, each with its model."""
        stores = await self.listed_stores()
        models = [model for model in self.pool.catalog if model.kind is ModelKind.CHAT]
        return [(f"{model.name}@{store.name}", model) for model in models for store in stores]

    def truncates(self, asked: bool | None) -> bool:
        """Whether to shorten what is too long: as a request says, else as the server's options do."""
        return self.options.truncate if asked is None else asked

    @asynccontextmanager
    async def opened(self, wanted: WantedTools | None) -> AsyncIterator[AskedTools | None]:
        """The tools of the server that a request wants, for the time of its answer; None if it wants or there are none.

        Raises:
            Problem: there is no such tool.
        """
        if self.tools is None or not wanted:
            yield None
            return
        async with self.tools.open(wanted) as asked:
            yield asked

    async def respond(self, worker: Worker, question: Question, words: Words, out: Output) -> None:
        """Answer a question in a protocol's words: as a stream, or as one document.

        Raises:
            Problem: the question cannot be honoured, or the worker refuses it.
            EngineError: the worker ended.
        """
        whole = Whole(question.n)
        if question.stream and words.counts_first:
            question = replace(question, body={**question.body, "return_progress": True})
        async with self._cached_or_computed(worker, question, out) as events:
            async for event in events:
                if not question.stream:
                    whole.add(event)
                    continue
                if not out.media_type:
                    out.open(words.media_type)
                if data := words.write(event):
                    out.write(data)
        if question.stream:
            if not out.media_type:
                out.open(words.media_type)
            out.write(words.finish())
            await out.close()
        else:
            whole.trim()
            await out.json(words.whole(whole))

    @asynccontextmanager
    async def _cached_or_computed(
        self, worker: Worker, question: Question, out: Output
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """The events of a stored answer if the cache has one, else of a computed one, which it may keep."""
        looked = await self.answers.look(worker.model, question) if self.answers and not question.tools else None
        if self.answers is None or looked is None:
            async with self._answer(worker, question, out) as events:
                yield events
            return
        self.metrics.looked_up(worker.model.name, hit=looked.origin is not None)
        out.headers[HEADER] = looked.origin.header() if looked.origin else "miss"
        if looked.origin is not None:
            yield replay(looked, worker.model.name)
            return
        async with self._answer(worker, question, out) as events:
            yield self.answers.keeping(looked, events, worker.model.name)

    @asynccontextmanager
    async def _answer(self, worker: Worker, question: Question, out: Output) -> AsyncIterator[AsyncIterator[Event]]:
        """The events of an answer, guarded and counted; leaving the block ends the computation.

        What is written to `out` is sent whenever the worker has nothing more for now.
        """
        asked: AskedDocuments | None = None
        if question.documents is not None and self.documents is not None:
            asked = await ask(self.documents, worker, question, question.documents)
            if not asked.needs_model:
                yield asked.watch(None)
                return
            question = replace(question, body=asked.body)
        tools = self._tools(question, worker)
        request, answer_id = question.request, f"chatcmpl-{secrets.token_urlsafe(18)}"
        # With tools each step is prepared by itself.
        body = question.body if tools else await prepare(question, worker, self.trial)
        asked_at = time.perf_counter()

        async def end() -> None:
            with suppress(EngineError):  # the stream ends with it
                await worker.end_answer(answer_id)

        wants_guard = self.options.loop_guard if request.loop_guard is None else request.loop_guard
        one_call = tools is not None or (body.get("parallel_tool_calls") is False and body.get("n", 1) == 1)
        guard = Guard(end, LoopGuard if wants_guard and has_one_answer(body) else None, one_call=one_call)
        async with AsyncExitStack() as stack:
            # It always streams: the guard watches, and the work stops when the client goes away.
            streaming = {"stream": True, "stream_options": {"include_usage": True}, "completion_id": answer_id}
            body = body | streaming
            if request.max_time is not None:
                stack.callback(asyncio.create_task(guard.end_after(request.max_time)).cancel)

            async def said(body: dict[str, Any]) -> AsyncIterator[Event]:
                events = read(await self._open(stack, worker, question, body, out))
                return guard.watch(without_tokens(events) if body.get("max_tokens") == 0 else events)

            async def step(body: dict[str, Any]) -> AsyncIterator[Event]:
                if must_call(body):
                    form = await asyncio.to_thread(required_form, worker.model)
                    return as_calls(await said(await asyncio.to_thread(by_grammar, body, form)), form)
                if not has_both(body):
                    return await said(body)
                return call_or_answer(await said(calling(body)), end, lambda: said(answering(body)))

            async def prepared(changed: dict[str, Any], grammar: str) -> AsyncIterator[Event]:
                body = await prepare(replace(question, body=changed), worker, self.trial)
                return await step(body | streaming | ({"grammar": grammar} if grammar else {}))

            events = tools.watch(prepared) if tools else await step(body)
            check = AnswerCheck(question.body, question.warnings, begun=begun_answer(question.body))
            events = self.metrics.watch(worker.model.name, check.watch(events), asked_at)
            events = await stack.enter_async_context(aclosing(events))
            if asked is not None:
                events = await stack.enter_async_context(aclosing(asked.watch(events)))
            yield events

    def _tools(self, question: Question, worker: Worker) -> AnswerWithTools | None:
        """The steps of an answer with tools of the server, if there are any."""
        asked = question.tools
        if self.tools is None or asked is None or not len(asked.toolbox):
            return None
        if question.documents is not None:
            question.warnings.append("tools of the server are left out: the answer comes from documents")
            return None
        return AnswerWithTools(self.tools, asked, question, worker, self.metrics)

    async def _open(
        self, stack: AsyncExitStack, worker: Worker, question: Question, body: dict[str, Any], out: Output
    ) -> AsyncIterator[Chunk]:
        """The stream; a prompt that is too long is shortened if the request allows it."""
        while True:
            try:
                return await stack.enter_async_context(worker.upstream.stream(question.path, body, out.flush))
            except UpstreamRefused as refused:
                if refused.error.get("type") != TOO_LONG or not self.truncates(question.request.wants_truncation):
                    raise
                body = await shortened(worker.upstream, body, refused)

    async def count_tokens(self, worker: Worker, body: dict[str, Any]) -> int:
        """How many tokens the prompt of a chat has."""
        messages = worker.model.with_system(body["messages"])
        counted = await worker.upstream.post(COUNT_TOKENS, {**body, "messages": messages})
        return int(counted["input_tokens"])


def service_of(request: Request) -> Service:
    """The service that a request is for."""
    service: Service = request.app.state.service
    return service
