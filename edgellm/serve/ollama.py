"""Ollama's endpoints that compute: chat, generate, embed. Those about models are in `ollama_models`.

routes = ollama.ROUTES
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgellm.serve.answers import Protocol
from edgellm.serve.catalog import Kind, ServedModel
from edgellm.serve.embedding import embed as embedded
from edgellm.serve.model_card import ModelCard, card_of
from edgellm.serve.ollama_answers import Asked, Clock, Piece, Telling, about_answer, chat_piece, generate_piece, tell
from edgellm.serve.ollama_requests import ChatRequest, EmbeddingsRequest, EmbedRequest, GenerateRequest
from edgellm.serve.openapi import takes
from edgellm.serve.problems import Problem
from edgellm.serve.requests import parsed
from edgellm.serve.responding import Output, Working
from edgellm.serve.service import Service, service_of
from edgellm.serve.worker import Worker


@takes(ChatRequest, lines=True)
async def chat(request: Request) -> Response:
    """POST /api/chat."""
    service, asked = service_of(request), parsed(ChatRequest, await request.body())
    model = service.model(asked.model, Kind.CHAT)
    if not asked.messages:
        return Working(_loading(service, model, asked, chat_piece))
    _check_abilities(asked, model, await card_of(model))
    body = asked.for_worker()
    body["messages"] = model.with_system(body["messages"])
    return Working(_answering(service, model, asked, Protocol.CHAT, body, chat_piece))


@takes(GenerateRequest, lines=True)
async def generate(request: Request) -> Response:
    """POST /api/generate: a prompt is put into the model's template, unless it is raw or the model has none."""
    service, asked = service_of(request), parsed(GenerateRequest, await request.body())
    model = service.model(asked.model, Kind.CHAT, Kind.COMPLETION)
    if not asked.prompt:
        return Working(_loading(service, model, asked, generate_piece))
    _check_abilities(asked, model, await card_of(model))
    if asked.raw or model.kind is Kind.COMPLETION:
        if asked.system:
            raise Problem(400, f"system: {model.name} only continues text", code="unsupported-field", field="system")
        body = asked.as_completion(asked.prompt)
        return Working(_answering(service, model, asked, Protocol.COMPLETIONS, body, generate_piece))
    body = asked.as_chat(model.with_system(asked.messages))
    return Working(_answering(service, model, asked, Protocol.CHAT, body, generate_piece))


@takes(EmbedRequest)
async def embed(request: Request) -> Response:
    """POST /api/embed: vectors of length one."""
    service, asked = service_of(request), parsed(EmbedRequest, await request.body())
    model = service.model(asked.model, Kind.EMBEDDING)
    if asked.dimensions not in (None, 0, model.outline.n_embd):
        message = f"dimensions: the vectors of {model.name} have {model.outline.n_embd} numbers"
        raise Problem(400, message, code="unsupported-field", field="dimensions")

    async def work(out: Output) -> None:
        vectors, told = await _vectors(service, model, asked, asked.texts)
        await out.json({"model": asked.model or model.name, "embeddings": vectors, **told})

    return Working(work)


@takes(EmbeddingsRequest)
async def embeddings(request: Request) -> Response:
    """POST /api/embeddings: the older form, for one text."""
    service, asked = service_of(request), parsed(EmbeddingsRequest, await request.body())
    model = service.model(asked.model, Kind.EMBEDDING)

    async def work(out: Output) -> None:
        vectors, _ = await _vectors(service, model, asked, [asked.prompt] if asked.prompt else [])
        await out.json({"embedding": vectors[0] if vectors else []})

    return Working(work)


ROUTES = [
    Route("/api/chat", chat, methods=["POST"]),
    Route("/api/generate", generate, methods=["POST"]),
    Route("/api/embed", embed, methods=["POST"]),
    Route("/api/embeddings", embeddings, methods=["POST"]),
]


async def _vectors(
    service: Service, model: ServedModel, asked: EmbedRequest | EmbeddingsRequest, texts: list[str]
) -> tuple[list[Any], dict[str, int]]:
    """The vectors, and what they took. Their `num_ctx` is no matter: a text that does not fit is told anyway."""
    clock = Clock()
    async with service.pool.lease(model.name, Kind.EMBEDDING, keep_seconds=asked.keep_alive) as worker:
        clock.loaded()
        if not texts:
            return [], {**clock.told(), "prompt_eval_count": 0}
        truncate = bool(asked.truncate or (asked.options and asked.options.truncate))
        reply = await embedded(worker, texts, truncate=truncate)
    vectors = [each["embedding"] for each in sorted(reply["data"], key=lambda each: each["index"])]
    return vectors, {**clock.told(), "prompt_eval_count": reply["usage"]["prompt_tokens"]}


def _loading(service: Service, model: ServedModel, asked: Asked, piece: Piece) -> Callable[[Output], Any]:
    """Without anything to answer a model is loaded; `keep_alive: 0` unloads it."""

    async def work(out: Output) -> None:
        clock = Clock()
        unload = asked.keep_alive == 0
        if not unload or any(state.model is model for state in service.pool.loaded):
            async with service.pool.lease(model.name, keep_seconds=asked.keep_alive):
                clock.loaded()
        reason = "unload" if unload else "load"
        await out.json({**about_answer(asked, model), **piece("", "", []), "done": True, "done_reason": reason})

    return work


def _answering(
    service: Service, model: ServedModel, asked: Asked, protocol: Protocol, body: dict[str, Any], piece: Piece
) -> Callable[[Output], Any]:
    kinds = (Kind.CHAT,) if isinstance(asked, ChatRequest) else (Kind.CHAT, Kind.COMPLETION)

    async def work(out: Output) -> None:
        clock = Clock()
        async with service.pool.lease(model.name, *kinds, keep_seconds=asked.keep_alive) as worker:
            clock.loaded()
            _check_context(asked, worker)
            await tell(service, worker, Telling(asked, protocol, piece, clock), body, out)

    return work


def _check_abilities(asked: Asked, model: ServedModel, card: ModelCard) -> None:
    """A template that does not know tools or thinking would leave them out without a word."""
    if asked.think:
        by_level = isinstance(asked.think, str)
        if not (card.knows_effort if by_level else card.thinks):
            message = f"think: {model.name} does not support thinking{' by levels' if by_level else ''}"
            raise Problem(400, message, code="unsupported-field", field="think")
    if isinstance(asked, ChatRequest) and asked.tools and model.kind is Kind.CHAT and not card.takes_tools:
        raise Problem(400, f"tools: {model.name} does not support tools", code="unsupported-field", field="tools")


def _check_context(asked: Asked, worker: Worker) -> None:
    """More context than there is would be a promise; less is given as more."""
    n_ctx, model = worker.plan.n_ctx, worker.model
    wanted = (asked.options.num_ctx if asked.options else None) or 0
    if wanted > n_ctx:
        most = model.outline.n_ctx_train
        serve = f"edgellm serve {model.name} --ctx-size {min(wanted, most)}"
        trained = f" (it was trained with {most:,})" if wanted > most else ""
        message = (
            f"options.num_ctx: {wanted:,} is more than the {n_ctx:,} tokens that {model.name} is served with{trained}; "
            f"send at most {n_ctx}" + (f", or start the server with: {serve}" if n_ctx < most else "")
        )
        raise Problem(400, message, code="context-too-large", field="options.num_ctx")
