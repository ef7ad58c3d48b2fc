"""Ollama's endpoints that compute: chat, generate, embed. Those about models are in `models.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgellm.serve.answer.prepare import CHAT, COMPLETIONS, Question
from edgellm.serve.http.openapi import takes
from edgellm.serve.http.problems import Problem
from edgellm.serve.http.response import LongResponse, Output
from edgellm.serve.protocols.ollama.requests import (
    EmbeddingsRequest,
    EmbedRequest,
    GenerateRequest,
    OllamaChatRequest,
    OllamaTextRequest,
)
from edgellm.serve.protocols.ollama.words import Clock, OllamaWords, Piece, chat_piece, generate_piece
from edgellm.serve.service import Service, service_of
from edgellm.serve.workers.catalog import ModelKind, ServedModel
from edgellm.serve.workers.embedding import check_dimensions
from edgellm.serve.workers.embedding import embed as embedded
from edgellm.serve.workers.model_card import ModelCard, card_of
from edgellm.wire.body import parse


@takes(OllamaChatRequest, lines=True)
async def chat(request: Request) -> Response:
    """POST /api/chat."""
    service, asked = service_of(request), parse(OllamaChatRequest, await request.body())
    model, documents = await service.asked(request, asked.model)
    if not asked.messages:
        return LongResponse(_loading(service, model, asked, chat_piece))
    _check_abilities(asked, model, await card_of(model))
    question = Question(CHAT, asked.for_engine(), asked.sampling, asked.wants_stream, documents=documents)
    return LongResponse(_answering(service, model, asked, question, chat_piece))


@takes(GenerateRequest, lines=True)
async def generate(request: Request) -> Response:
    """POST /api/generate: the model's template wraps the prompt, unless `raw` is set or the model has none."""
    service, asked = service_of(request), parse(GenerateRequest, await request.body())
    model = service.model(asked.model, ModelKind.CHAT, ModelKind.COMPLETION)
    if not asked.prompt:
        return LongResponse(_loading(service, model, asked, generate_piece))
    _check_abilities(asked, model, await card_of(model))
    if asked.raw or model.kind is ModelKind.COMPLETION:
        if asked.system:
            raise Problem(400, f"system: {model.name} only continues text", code="unsupported-field", field="system")
        question = Question(COMPLETIONS, asked.as_completion(asked.prompt), asked.sampling, asked.wants_stream)
    else:
        question = Question(CHAT, asked.as_chat(asked.messages), asked.sampling, asked.wants_stream)
    return LongResponse(_answering(service, model, asked, question, generate_piece))


@takes(EmbedRequest)
async def embed(request: Request) -> Response:
    """POST /api/embed: vectors of length 1."""
    service, asked = service_of(request), parse(EmbedRequest, await request.body())
    model = service.model(asked.model, ModelKind.EMBEDDING)
    check_dimensions(asked.dimensions or None, model)

    async def work(out: Output) -> None:
        vectors, counts = await _vectors(service, model, asked, asked.texts)
        await out.json({"model": asked.model or model.name, "embeddings": vectors, **counts})

    return LongResponse(work)


@takes(EmbeddingsRequest)
async def embeddings(request: Request) -> Response:
    """POST /api/embeddings: the older form, for one text."""
    service, asked = service_of(request), parse(EmbeddingsRequest, await request.body())
    model = service.model(asked.model, ModelKind.EMBEDDING)

    async def work(out: Output) -> None:
        vectors, _ = await _vectors(service, model, asked, [asked.prompt] if asked.prompt else [])
        await out.json({"embedding": vectors[0] if vectors else []})

    return LongResponse(work)


ROUTES = [
    Route("/api/chat", chat, methods=["POST"]),
    Route("/api/generate", generate, methods=["POST"]),
    Route("/api/embed", embed, methods=["POST"]),
    Route("/api/embeddings", embeddings, methods=["POST"]),
]


async def _vectors(
    service: Service, model: ServedModel, asked: EmbedRequest | EmbeddingsRequest, texts: list[str]
) -> tuple[list[Any], dict[str, int]]:
    """The vectors, with durations and counts. `num_ctx` is ignored: a text that is too long is an error anyway."""
    clock = Clock()
    async with service.pool.lease(model.name, ModelKind.EMBEDDING, keep_seconds=asked.keep_alive) as worker:
        clock.loaded()
        if not texts:
            return [], {**clock.durations(), "prompt_eval_count": 0}
        wanted = asked.options.truncate if asked.truncate is None and asked.options else asked.truncate
        reply = await embedded(worker, texts, truncate=service.truncates(wanted))
    vectors = [each["embedding"] for each in sorted(reply["data"], key=lambda each: each["index"])]
    return vectors, {**clock.durations(), "prompt_eval_count": reply["usage"]["prompt_tokens"]}


def _loading(service: Service, model: ServedModel, asked: OllamaTextRequest, piece: Piece) -> Callable[[Output], Any]:
    """Load the model if there is nothing to answer; `keep_alive: 0` unloads it."""

    async def work(out: Output) -> None:
        clock = Clock()
        unload = asked.keep_alive == 0
        if not unload or any(state.model is model for state in service.pool.loaded):
            async with service.pool.lease(model.name, keep_seconds=asked.keep_alive):
                clock.loaded()
        reason = "unload" if unload else "load"
        await out.json(OllamaWords(asked, model.name, piece, clock).without_answer(reason))

    return work


def _answering(
    service: Service, model: ServedModel, asked: OllamaTextRequest, question: Question, piece: Piece
) -> Callable[[Output], Any]:
    kinds = (ModelKind.CHAT,) if isinstance(asked, OllamaChatRequest) else (ModelKind.CHAT, ModelKind.COMPLETION)

    async def work(out: Output) -> None:
        clock = Clock()
        async with service.pool.lease(model.name, *kinds, keep_seconds=asked.keep_alive) as worker:
            clock.loaded()
            await service.respond(worker, question, OllamaWords(asked, model.name, piece, clock), out)

    return work


def _check_abilities(asked: OllamaTextRequest, model: ServedModel, card: ModelCard) -> None:
    """Refuse tools and thinking where the template would silently drop them."""
    if asked.think:
        by_level = isinstance(asked.think, str)
        if not (card.knows_effort if by_level else card.thinks):
            message = f"think: {model.name} does not support thinking{' by levels' if by_level else ''}"
            raise Problem(400, message, code="unsupported-field", field="think")
    if isinstance(asked, OllamaChatRequest) and asked.tools and model.kind is ModelKind.CHAT and not card.takes_tools:
        raise Problem(400, f"tools: {model.name} does not support tools", code="unsupported-field", field="tools")
