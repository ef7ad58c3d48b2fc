"""Reranking: how well each of several texts answers a query, by a model that was made for it.

routes = rerank.ROUTES
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgellm.serve.catalog import Kind, ServedModel
from edgellm.serve.openai_requests import Text
from edgellm.serve.openapi import takes
from edgellm.serve.problems import Problem
from edgellm.serve.requests import Body, Name, parsed
from edgellm.serve.responding import Output, Working
from edgellm.serve.service import Service, service_of


class Document(Body):
    """A text in an object."""

    text: Text


class RerankRequest(Body):
    """POST /v1/rerank."""

    model: Name | None = None
    query: Annotated[Text, Field(min_length=1)]
    documents: Annotated[list[Text | Document], Field(min_length=1, max_length=2048)]
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool | None = None

    @property
    def texts(self) -> list[str]:
        """The documents' texts."""
        return [each if isinstance(each, str) else each.text for each in self.documents]


@takes(RerankRequest)
async def rerank(request: Request) -> Response:
    """POST /v1/rerank: the documents in the order in which they answer the query, best first."""
    service, asked = service_of(request), parsed(RerankRequest, await request.body())
    model = _reranker(service, asked.model)

    async def work(out: Output) -> None:
        async with service.pool.lease(model.name, Kind.RERANK) as worker:
            told = await worker.upstream.post("/v1/rerank", {"query": asked.query, "documents": asked.texts})
            results = [_result(asked, each) for each in told["results"][: asked.top_n]]
            await out.json({"model": model.name, "object": "list", "results": results, "usage": told["usage"]})

    return Working(work)


def _reranker(service: Service, name: str | None) -> ServedModel:
    model = service.model(name, Kind.RERANK)
    if model.kind is not Kind.RERANK:
        message = f"{model.name} cannot rank; that needs a reranker, a GGUF file whose pooling_type is rank (4)"
        raise Problem(400, message, code="wrong-model", field="model")
    return model


def _result(asked: RerankRequest, told: dict[str, Any]) -> dict[str, Any]:
    document = {"document": {"text": asked.texts[told["index"]]}} if asked.return_documents else {}
    return {"index": told["index"], "relevance_score": told["relevance_score"], **document}


ROUTES = [Route(path, rerank, methods=["POST"]) for path in ("/v1/rerank", "/rerank", "/v1/reranking")]
