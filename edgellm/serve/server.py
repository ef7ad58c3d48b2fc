"""A whole server: from options and models to answered requests, until it is stopped.

serve(options, catalog, engine, settings, on_ready=...)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgellm.cache.answer_cache import AnswerCache
from edgellm.cache.decision import EMBEDDER
from edgellm.cache.store import AnswerStore
from edgellm.documents.embedder import ChunkEmbedder
from edgellm.documents.reranker import ChunkReranker
from edgellm.documents.shelf import Shelf
from edgellm.engine.builds.installed import InstalledEngine
from edgellm.errors import EdgellmError
from edgellm.machine import memory
from edgellm.machine.cpu import usable_cores
from edgellm.models.fit.memory import RunPlan
from edgellm.models.fit.tuned_plan import Tuning
from edgellm.models.local.packed import PackedFiles
from edgellm.models.local.prompt_files import PromptFiles
from edgellm.models.local.tune_records import TunePlace, known_tuning
from edgellm.run.draft_records import DraftRecords
from edgellm.run.self_test import SelfTests
from edgellm.serve.answer.cached import CachedAnswers
from edgellm.serve.answer.grammar_trial import GrammarTrial
from edgellm.serve.app import application
from edgellm.serve.documents.embedder import Bridge, WorkerModel
from edgellm.serve.documents.reranker import ServedReranker, WorkerRanker
from edgellm.serve.documents.stores import ALL, VectorStores
from edgellm.serve.documents.uploads import Uploads
from edgellm.serve.http import listener
from edgellm.serve.http.current import Handled
from edgellm.serve.logs import logging_to
from edgellm.serve.metrics import Metrics, usual
from edgellm.serve.options import ServeOptions
from edgellm.serve.protocols import openai
from edgellm.serve.records import Record
from edgellm.serve.scoring.pool import ScoringPool
from edgellm.serve.service import Service
from edgellm.serve.tools.served import ServedTools
from edgellm.serve.workers.catalog import Catalog, ModelKind, ServedModel
from edgellm.serve.workers.conversations import Conversations
from edgellm.serve.workers.crew import Crew, Links
from edgellm.serve.workers.embedding import embed_question
from edgellm.serve.workers.pool import Pool
from edgellm.serve.workers.self_test import self_test
from edgellm.serve.workers.worker import Worker
from edgellm.settings import Settings
from edgellm.tools.choice import by_meaning

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

PROGRAM = "llama-server"

log = logging.getLogger("edgellm.serve")


def serve(
    options: ServeOptions,
    catalog: Catalog,
    engine: InstalledEngine,
    settings: Settings,
    *,
    on_ready: Callable[[Service], None],
    on_request: Callable[[Handled], None] | None = None,
    tools: ServedTools | None = None,
    listening: socket.socket | None = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C. `engine` has llama-server; `settings` tell where logs and the record go.

    `tools` are those that the server runs for its clients. `listening` is a socket to use instead of binding one.

    Raises:
        UsageError: the address cannot be listened on.
        WorkerLost, WorkerRefused: a worker on another machine cannot be used.
    """

    crew = _crew(options, engine)
    tests = SelfTests(settings.self_tests, engine.record.stamp)
    packed = PackedFiles.of_user(settings, engine.record.stamp)
    draft_records = DraftRecords(settings.draft_costs, TunePlace.here(engine.record.stamp))

    async def start(model: ServedModel, plan: RunPlan) -> Worker:
        if conversations is None or not conversations.has(model):
            return await start_plain(model, plan)
        async with conversations.restoring(model, plan) as restore:
            worker = await start_plain(model, plan, slots=conversations.directory)
            try:
                n_tokens = await restore(worker)
            except BaseException:
                await worker.stop(grace=0)
                raise
            if n_tokens:
                log.info("restored %d tokens of conversations with %s", n_tokens, model.name)
        return worker

    async def start_plain(model: ServedModel, plan: RunPlan, slots: Path | None = None) -> Worker:
        links = None
        if crew is not None and model.writes:
            found, split = crew.plan(
                model.outline, memory.room(), options, n_ctx=plan.n_ctx, kv_type=plan.kv_type, n_threads=plan.n_threads
            )
            log.info("%s: %s", model.name, split)
            plan, links = found, await asyncio.to_thread(Links, split, crew.stamp)
        try:
            kept = None if links else await asyncio.to_thread(packed.prepare, model.path)
            log_file = settings.logs / f"{model.file_name}.log"
            drafts = options.draft and model.kind in (ModelKind.CHAT, ModelKind.COMPLETION)
            costs = draft_records.costs(model.path, plan.n_threads) if drafts else None
            worker = await Worker.start(
                engine.programs / PROGRAM, model, plan, log=log_file, packed=kept, slots=slots, costs=costs, links=links
            )
        except BaseException:
            if links is not None:
                await asyncio.to_thread(links.close)
            raise
        await asyncio.to_thread(record.add_worker, worker.pid)
        try:
            doubt = await self_test(worker, tests)
        except BaseException:
            await worker.stop(grace=0)
            raise
        if doubt:
            log.warning("%s begins with nonsense: %s; the file may be damaged", model.name, doubt)
        return worker

    async def keep(worker: Worker) -> None:
        if conversations is not None:
            await conversations.save(worker)

    def tuning(model: ServedModel) -> Tuning | None:
        known = known_tuning(settings.tunings, model.path, engine.record.stamp) if options.tuned else None
        return known.with_threads(options.n_threads) if known else None

    def ready() -> None:
        record.write()
        log.info("serving at %s: %s", options.url, ", ".join(record.server.models))
        on_ready(service)

    record = Record.of(
        settings.servers, options, tuple(model.name for model in catalog),
        {model.name: model.path for model in catalog if not model.adapters},
    )  # fmt: skip
    n_threads = options.n_threads or usable_cores()
    metrics = Metrics()
    conversations = _conversations(options, settings, engine, metrics)
    pool = Pool(catalog, options, start, n_threads=n_threads, tuning=tuning, keep=keep)
    pool.crew = crew
    scoring = ScoringPool(pool, options, settings.logs, n_threads=n_threads)
    chats = settings.chats if options.shares_chats else None
    bridge = Bridge()
    documents = _documents(options, settings, pool, bridge) if options.offers_documents else None
    answers = cached_answers(options, pool, AnswerStore.open(settings.answers)) if options.answer_cache else None
    if tools is not None and (comparer := pool.catalog.embedder(EMBEDDER)) is not None:
        tools.choose = by_meaning(WorkerModel(bridge, pool, comparer, EMBEDDER).embed)
    service = Service(options, pool, scoring, GrammarTrial(engine), metrics, chats, documents, answers, tools)

    @contextlib.asynccontextmanager
    async def living() -> AsyncIterator[None]:
        bridge.open()
        running = [asyncio.create_task(pool.run()), asyncio.create_task(scoring.run())]
        if documents is not None:
            running.append(asyncio.create_task(documents.run()))
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            bridge.close()  # the threads of documents and tools wait no longer
            if documents is not None:
                await documents.stop()
            await asyncio.gather(pool.stop(), scoring.stop())
            record.remove()
            if tools is not None:
                tools.close()
            if answers is not None:
                answers.close()
            log.info("stopped")

    listening = listening or listener.bind(options)
    app = application(service, living(), on_request)
    with logging_to(settings.logs / "serve.log", secrets=options.api_keys):
        listener.run(app, options, listening, openai.API, on_ready=ready, on_stop=pool.close)


def _crew(options: ServeOptions, engine: InstalledEngine) -> Crew | None:
    """The workers on other machines; at the start all of them must answer."""
    if not options.workers:
        return None
    crew = Crew(options.workers, engine.record.stamp)
    for error in crew.look():
        raise error
    return crew


def _conversations(
    options: ServeOptions, settings: Settings, engine: InstalledEngine, metrics: Metrics
) -> Conversations | None:
    """What keeps conversations on disk, None if it is switched off."""
    files = PromptFiles.of_size(settings.prompts, options.prompt_cache)
    if not files.limit:
        return None
    return Conversations(files, engine, options, lambda name: usual(metrics.models[name].prefill_rates))


def _documents(options: ServeOptions, settings: Settings, pool: Pool, bridge: Bridge) -> VectorStores:
    """The stores of documents, whose texts are embedded and reranked by models of the pool."""

    def embedder(name: str) -> ChunkEmbedder | None:
        wanted = name or options.embedder
        model = pool.catalog.embedder(wanted)
        if model is None:
            return None
        return ChunkEmbedder.of(WorkerModel(bridge, pool, model, wanted), model.recipe)

    def reranker(name: str) -> ChunkReranker | None:
        model = pool.catalog.reranker(name)
        return None if model is None else ServedReranker(WorkerRanker(bridge, pool, model), name)

    names = options.documents or (ALL,)
    return VectorStores(Shelf(settings.documents), Uploads(settings.uploads), names, embedder, bridge, reranker)


def cached_answers(options: ServeOptions, pool: Pool, store: AnswerStore) -> CachedAnswers:
    """The answer cache of a server; questions are compared by the embedding model, if the server offers it."""
    is_served = pool.catalog.embedder(EMBEDDER) is not None

    async def vector(question: str) -> npt.NDArray[np.float32] | None:
        if not is_served:
            return None
        async with pool.lease(EMBEDDER, ModelKind.EMBEDDING) as worker:
            return await embed_question(worker, question)

    def failed(error: EdgellmError) -> None:
        log.error("the answer cache is out of use: %s: %s", error.what, error.why)

    name = EMBEDDER if is_served else ""
    cache = AnswerCache(store, embedder=name, error=options.answer_cache_error, on_failure=failed)
    return CachedAnswers(cache, embed=vector, sampled=options.answer_cache_sampled)
