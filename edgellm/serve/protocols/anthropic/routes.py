"""Anthropic's Messages API: POST /v1/messages, and /v1/messages/count_tokens."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgellm.serve.answer.prepare import CHAT, Question
from edgellm.serve.http.openapi import takes
from edgellm.serve.http.response import LongResponse, Output
from edgellm.serve.protocols.anthropic.requests import AnthropicSearch, CountRequest, MessageRequest
from edgellm.serve.protocols.anthropic.words import MessageWords
from edgellm.serve.service import service_of
from edgellm.serve.tools.served import AskedTools
from edgellm.serve.tools.wanted import WEB_SEARCH, WantedTools
from edgellm.serve.workers.catalog import ModelKind
from edgellm.wire.body import UnsupportedField, parse


@takes(MessageRequest, streams=True)
async def create(request: Request) -> Response:
    """POST /v1/messages: an answer to a conversation."""
    service, asked = service_of(request), parse(MessageRequest, await request.body())
    model, documents = await service.asked(request, asked.model)
    wanted = asked.server_tools if service.tools is not None else WantedTools()
    body = asked.for_engine(has_server_tools=bool(wanted))  # before a model is loaded for it

    async def work(out: Output) -> None:
        async with service.opened(wanted) as tools, service.pool.lease(model.name, ModelKind.CHAT) as worker:
            _check(asked, tools)
            question = Question(CHAT, body, asked, bool(asked.stream), documents=documents, tools=tools)
            await service.respond(worker, question, MessageWords(asked, model.name, tools), out)

    return LongResponse(work)


@takes(CountRequest)
async def count(request: Request) -> Response:
    """POST /v1/messages/count_tokens: how many tokens a request would have."""
    service, asked = service_of(request), parse(CountRequest, await request.body())
    model, _ = await service.asked(request, asked.model)
    body = asked.prompt()  # before a model is loaded for it

    async def work(out: Output) -> None:
        async with service.pool.lease(model.name, ModelKind.CHAT) as worker:
            n_tokens = await service.count_tokens(worker, body)
            edits = {} if asked.context_management is None else {"original_input_tokens": n_tokens}
            await out.json({"input_tokens": n_tokens, **({"context_management": edits} if edits else {})})

    return LongResponse(work)


def _check(asked: MessageRequest, tools: AskedTools | None) -> None:
    """Refuse what the web search here does not do, where it is used."""
    if tools is None or tools.toolbox.get(WEB_SEARCH) is None:
        return
    for number, tool in enumerate(asked.tools or ()):
        if isinstance(tool, AnthropicSearch) and (tool.allowed_domains or tool.blocked_domains):
            field = f"tools.{number}.{'allowed_domains' if tool.allowed_domains else 'blocked_domains'}"
            raise UnsupportedField(
                f"{field} is not supported: the search engine's results are not filtered", field=field
            )


ROUTES = [
    Route("/v1/messages", create, methods=["POST"]),
    Route("/v1/messages/count_tokens", count, methods=["POST"]),
]
