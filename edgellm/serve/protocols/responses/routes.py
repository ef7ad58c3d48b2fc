"""OpenAI's Responses API: POST /v1/responses, and the tokens that a request would have."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgellm.serve.answer.prepare import CHAT, Question
from edgellm.serve.documents.store import USUAL_PASSAGES, DocumentScope
from edgellm.serve.documents.stores import VectorStores
from edgellm.serve.http.openapi import takes
from edgellm.serve.http.response import LongResponse, Output
from edgellm.serve.protocols.responses.requests import ResponseRequest
from edgellm.serve.protocols.responses.tools import FileSearchTool, WebSearchTool
from edgellm.serve.protocols.responses.words import ResponseWords
from edgellm.serve.service import service_of
from edgellm.serve.tools.served import AskedTools
from edgellm.serve.tools.wanted import WEB_SEARCH, WantedTools
from edgellm.serve.workers.catalog import ModelKind
from edgellm.wire.body import UnsupportedField, parse


@takes(ResponseRequest, streams=True)
async def create(request: Request) -> Response:
    """POST /v1/responses: an answer to a text or to the items of a conversation."""
    service, asked = service_of(request), parse(ResponseRequest, await request.body())
    model, documents = await service.asked(request, asked.model)
    wanted = asked.server_tools if service.tools is not None else WantedTools()
    body = asked.for_engine(has_server_tools=bool(wanted))  # before a model is loaded for it
    if asked.search is not None and (stores := service.documents_for(request)) is not None:
        documents = await _searched(stores, asked.search)

    async def work(out: Output) -> None:
        async with service.opened(wanted) as tools, service.pool.lease(model.name, ModelKind.CHAT) as worker:
            _check(asked, tools)
            question = Question(CHAT, body, asked, bool(asked.stream), documents=documents, tools=tools)
            await service.respond(worker, question, ResponseWords(asked, model.name, tools), out)

    return LongResponse(work)


@takes(ResponseRequest)
async def count(request: Request) -> Response:
    """POST /v1/responses/input_tokens: how many tokens a request would have."""
    service, asked = service_of(request), parse(ResponseRequest, await request.body())
    model, _ = await service.asked(request, asked.model)
    body = asked.for_engine()  # before a model is loaded for it

    async def work(out: Output) -> None:
        async with service.pool.lease(model.name, ModelKind.CHAT) as worker:
            n_tokens = await service.count_tokens(worker, body)
            await out.json({"object": "response.input_tokens", "input_tokens": n_tokens})

    return LongResponse(work)


def _check(asked: ResponseRequest, tools: AskedTools | None) -> None:
    """Refuse what the web search here does not do, where it is used."""
    if tools is None or tools.toolbox.get(WEB_SEARCH) is None:
        return
    for number, tool in enumerate(asked.tools or ()):
        if isinstance(tool, WebSearchTool) and tool.filters:
            field = f"tools.{number}.filters"
            why = "the search engine's results are not filtered"
            raise UnsupportedField(f"{field} is not supported: {why}", field=field)


async def _searched(stores: VectorStores, tool: FileSearchTool) -> DocumentScope:
    """The documents that a tool is to search; `Problem` (404) for an id that no store has."""
    store = await stores.work(stores.get, tool.vector_store_ids[0])
    return DocumentScope(store, tool.max_num_results or USUAL_PASSAGES, lists_sources=False)


ROUTES = [
    Route("/v1/responses", create, methods=["POST"]),
    Route("/v1/responses/input_tokens", count, methods=["POST"]),
]
