"""A reranker of the pool for threads that search; while it cannot be used, passages stay in their order.

reranker = ServedReranker(WorkerRanker(bridge, pool, served), "bge-reranker-v2-m3")
reranker.ordered("how long is the warranty?", chunks)
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from edgellm.documents.collection import IndexedChunk
from edgellm.documents.reranker import ChunkReranker
from edgellm.engine.finite import not_finite
from edgellm.errors import EdgellmError
from edgellm.serve.documents.embedder import TOGETHER, Bridge, tokens
from edgellm.serve.http.problems import Problem
from edgellm.serve.workers.catalog import ModelKind, ServedModel
from edgellm.serve.workers.pool import Pool

# What stands around and between two texts where the file has no template for them: at most four tokens.
BESIDE = 4

log = logging.getLogger("edgellm.serve")


class WorkerRanker:
    """A reranker of the pool; each call leases its worker, so it is unloaded when it has nothing to do."""

    def __init__(self, bridge: Bridge, pool: Pool, model: ServedModel) -> None:
        self._bridge, self._pool, self._model = bridge, pool, model

    @property
    def n_pair(self) -> int:
        """The tokens of a question and a text together that it reads at once."""
        return self._bridge.run(self._n_ctx())

    def count_pair(self, question: str, text: str) -> int:
        """The tokens of both, with those around them, or a few more."""
        return self._bridge.run(self._count(question, text))

    def rank(self, question: str, texts: Sequence[str]) -> list[float]:
        """How well each text answers the question; more is better.

        Raises:
            Problem, EngineError: the model has no room now, or its worker is gone.
        """
        return self._bridge.run(self._rank(question, list(texts)))

    async def _n_ctx(self) -> int:
        return self._pool.expected(self._model).n_ctx

    async def _count(self, question: str, text: str) -> int:
        template = self._model.rerank_template or "{query}\n{document}"
        whole = template.replace("{query}", question).replace("{document}", text)
        async with self._pool.lease(self._model.name, ModelKind.RERANK) as worker:
            return len(await tokens(worker, whole)) + BESIDE

    async def _rank(self, question: str, texts: list[str]) -> list[float]:
        async with self._pool.lease(self._model.name, ModelKind.RERANK) as worker:
            reply = await worker.upstream.post("/v1/rerank", {"query": question, "documents": texts})
        scores = {int(each["index"]): each["relevance_score"] for each in reply["results"]}
        if None in scores.values():  # what llama-server makes of NaN
            raise not_finite(self._model.name)
        return [float(scores[index]) for index in range(len(texts))]


class ServedReranker(ChunkReranker):
    """A reranker whose failures leave the order as it is: an answer from a good list is better than none."""

    def __init__(self, model: WorkerRanker, name: str) -> None:
        super().__init__(model, together=TOGETHER)
        self._name = name

    def ordered(self, question: str, chunks: Sequence[IndexedChunk]) -> list[IndexedChunk]:
        """The chunks, best first; as they were if the reranker has no room now, or its worker is gone."""
        try:
            return super().ordered(question, chunks)
        except (Problem, EdgellmError) as error:
            log.warning("not reranked by %s: %s", self._name, error)
            return list(chunks)
