"""Reranking: a model made for it scores how well each text answers a query."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgellm.engine.finite import not_finite
from edgellm.serve.http.api import Api
from edgellm.serve.http.openapi import takes
from edgellm.serve.http.problems import Problem
from edgellm.serve.http.response import LongResponse, Output
from edgellm.serve.protocols.openai.words import error, error_event
from edgellm.serve.service import Service, service_of
from edgellm.serve.workers.catalog import ModelKind, ServedModel
from edgellm.wire.body import Body, parse
from edgellm.wire.fields import LABELS, Name, Text


class RerankDocument(Body):
    """A document in an object; clients may also send plain strings."""

    text: Text


class RerankRequest(Body):
    """POST /v1/rerank."""

    ignored = LABELS
    model: Name | None = None
    query: Annotated[Text, Field(min_length=1)]
    documents: Annotated[list[Text | RerankDocument], Field(min_length=1, max_length=2048)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = None

    @property
    def texts(self) -> list[str]:
        """The documents' texts."""
        return [each if isinstance(each, str) else each.text for each in self.documents]


@takes(RerankRequest)
async def rerank(request: Request) -> Response:
    """POST /v1/rerank: the documents ordered by how well they answer the query, best first."""
    service, asked = service_of(request), parse(RerankRequest, await request.body())
    model = _reranker(service, asked.model)

    async def work(out: Output) -> None:
        async with service.pool.lease(model.name, ModelKind.RERANK) as worker:
            ranked = await worker.upstream.post("/v1/rerank", {"query": asked.query, "documents": asked.texts})
            if any(each["relevance_score"] is None for each in ranked["results"]):  # what llama-server makes of NaN
                raise not_finite(model.name)
            results = [_result(asked, each) for each in ranked["results"][: asked.top_n]]
            await out.json({"model": model.name, "object": "list", "results": results, "usage": ranked["usage"]})

    return LongResponse(work)


def _reranker(service: Service, name: str | None) -> ServedModel:
    model = service.model(name, ModelKind.RERANK)
    if model.kind is not ModelKind.RERANK:
        message = f"{model.name} cannot rank; that needs a reranker, a GGUF file whose pooling_type is rank (4)"
        raise Problem(400, message, code="wrong-model", field="model")
    return model


def _result(asked: RerankRequest, ranked: dict[str, Any]) -> dict[str, Any]:
    document = {"document": {"text": asked.texts[ranked["index"]]}} if asked.return_documents else {}
    return {"index": ranked["index"], "relevance_score": ranked["relevance_score"], **document}


PATHS = ("/v1/rerank", "/rerank", "/v1/reranking")
ROUTES = [Route(path, rerank, methods=["POST"]) for path in PATHS]
API = Api("rerank", ROUTES, PATHS, error, error_event)
