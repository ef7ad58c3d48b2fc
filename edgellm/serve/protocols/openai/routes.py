"""OpenAI's endpoints: models, chat, completions, embeddings."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgellm.serve.answer.prepare import CHAT, COMPLETIONS, Question, check_tokens
from edgellm.serve.http.openapi import takes
from edgellm.serve.http.problems import Problem
from edgellm.serve.http.response import LongResponse, Output
from edgellm.serve.protocols.openai.echo import echo
from edgellm.serve.protocols.openai.words import CompletionWords
from edgellm.serve.service import Service, service_of
from edgellm.serve.tools.wanted import FirstCall, WantedTools
from edgellm.serve.workers.catalog import ModelKind, ServedModel
from edgellm.serve.workers.embedding import check_dimensions, embed
from edgellm.wire.body import parse
from edgellm.wire.openai_requests import ChatRequest, CompletionRequest, EmbeddingRequest
from edgellm.wire.tool_choice import NamedTool


async def list_models(request: Request) -> Response:
    """GET /v1/models."""
    service = service_of(request)
    named = [*((model.name, model) for model in service.pool.catalog), *await service.with_documents()]
    return JSONResponse({"object": "list", "data": [_described(service, name, model) for name, model in named]})


async def get_model(request: Request) -> Response:
    """GET /v1/models/NAME."""
    service, name = service_of(request), request.path_params["name"]
    model, documents = await service.asked(request, name)
    return JSONResponse(_described(service, name if documents else model.name, model))


@takes(ChatRequest, streams=True)
async def chat(request: Request) -> Response:
    """POST /v1/chat/completions."""
    service, asked = service_of(request), parse(ChatRequest, await request.body())
    model, documents = await service.asked(request, asked.model)
    wanted = _wanted(asked)
    if wanted and service.tools is None:
        message = "server_tools: this server runs no tools; it is started with edgellm serve --tools"
        raise Problem(400, message, code="unknown-tool", field="server_tools")

    async def work(out: Output) -> None:
        body, n = asked.for_engine(), asked.n or 1
        async with service.opened(wanted) as tools, service.pool.lease(model.name, ModelKind.CHAT) as worker:
            question = Question(CHAT, body, asked, bool(asked.stream), n, documents=documents, tools=tools)
            await service.respond(worker, question, _words(asked, has_tools=tools is not None), out)

    return LongResponse(work)


@takes(CompletionRequest, streams=True)
async def completions(request: Request) -> Response:
    """POST /v1/completions."""
    service, asked = service_of(request), parse(CompletionRequest, await request.body())
    model = service.model(asked.model, ModelKind.CHAT, ModelKind.COMPLETION)

    async def work(out: Output) -> None:
        if asked.echo:
            await echo(service, model, asked, out)
            return
        async with service.pool.lease(model.name, ModelKind.CHAT, ModelKind.COMPLETION) as worker:
            question = Question(COMPLETIONS, asked.for_engine(), asked, bool(asked.stream), asked.n or 1)
            await service.respond(worker, question, _words(asked), out)

    return LongResponse(work)


@takes(EmbeddingRequest)
async def embeddings(request: Request) -> Response:
    """POST /v1/embeddings, as numbers or base64: clients that ask for one cannot read the other."""
    service, asked = service_of(request), parse(EmbeddingRequest, await request.body())
    model = service.model(asked.model, ModelKind.EMBEDDING)
    check_tokens(asked.input, model, "input")
    check_dimensions(asked.dimensions, model)

    async def work(out: Output) -> None:
        async with service.pool.lease(model.name, ModelKind.EMBEDDING) as worker:
            form = asked.encoding_format or "float"
            reply = await embed(worker, asked.texts, truncate=service.truncates(asked.truncate), encoding_format=form)
            service.metrics.embedded(model.name, reply)
            await out.json(reply)

    return LongResponse(work)


def _described(service: Service, name: str, model: ServedModel) -> dict[str, Any]:
    n_ctx = service.pool.expected(model).n_ctx
    meta = {
        "n_ctx": n_ctx, "n_ctx_train": model.outline.n_ctx_train, "n_params": model.outline.n_params,
        "size": model.n_bytes, "quant": model.outline.quant, "kind": model.kind.value,
        "loaded": service.pool.state(model).worker is not None,
    }  # fmt: skip
    about = {"id": name, "object": "model", "created": model.created, "owned_by": "edgellm"}
    return {**about, "max_model_len": n_ctx, "meta": meta}  # vLLM's name for the context, which clients read


def _wanted(asked: ChatRequest) -> WantedTools:
    """The tools of the server that a chat may use: none where no tool may be called, or one of the client's must be."""
    named, choice = asked.server_tools, asked.tool_choice
    first = None
    if asked.chooses_of_server:
        first = FirstCall(choice.function.name) if isinstance(choice, NamedTool) else FirstCall()
    elif choice not in (None, "auto"):
        return WantedTools()
    if isinstance(named, list):
        return WantedTools(names=tuple(named), first=first)
    return WantedTools(everything=bool(named), first=first)


def _words(asked: ChatRequest | CompletionRequest, *, has_tools: bool = False) -> CompletionWords:
    is_chat = isinstance(asked, ChatRequest)
    return CompletionWords(
        is_chat=is_chat, n=asked.n or 1, n_top=asked.n_top, wants_usage=asked.wants_usage_chunk,
        wants_usage_on_chunks=asked.wants_usage_on_chunks, wants_timings=bool(asked.timings_per_token),
        has_tools=has_tools,
    )  # fmt: skip


ROUTES = [
    Route("/v1/models", list_models, methods=["GET"]),
    Route("/v1/models/{name:path}", get_model, methods=["GET"]),
    Route("/v1/chat/completions", chat, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/embeddings", embeddings, methods=["POST"]),
]
