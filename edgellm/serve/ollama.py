"""Ollama's endpoints that compute: chat, generate, embed. Those about models are in `ollama_models`.

routes = ollama.ROUTES

An answer is a line of JSON a piece; the last one has the counts, and the durations in nanoseconds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgellm.serve.answers import Ending, Protocol
from edgellm.serve.catalog import Kind, ServedModel
from edgellm.serve.embedding import embed as embedded
from edgellm.serve.merging import CONTENT, REASONING, Merged
from edgellm.serve.model_card import ModelCard, card_of
from edgellm.serve.ollama_requests import ChatRequest, EmbeddingsRequest, EmbedRequest, GenerateRequest
from edgellm.serve.problems import Problem
from edgellm.serve.requests import parsed
from edgellm.serve.responding import LINES, Output, Working, encoded
from edgellm.serve.service import Service, service_of
from edgellm.serve.worker import Worker

Asked = ChatRequest | GenerateRequest
Piece = Callable[[str, str, list[dict[str, Any]]], dict[str, Any]]


async def chat(request: Request) -> Response:
    """POST /api/chat."""
    service, asked = service_of(request), parsed(ChatRequest, await request.body())
    model = service.model(asked.model, Kind.CHAT)
    if not asked.messages:
        return Working(_loading(service, model, asked, _chat_piece))
    _check_abilities(asked, model, await card_of(model))
    body = asked.for_worker()
    body["messages"] = model.with_system(body["messages"])
    return Working(_answering(service, model, asked, Protocol.CHAT, body, _chat_piece))


async def generate(request: Request) -> Response:
    """POST /api/generate: a prompt is put into the model's template, unless it is raw or the model has none."""
    service, asked = service_of(request), parsed(GenerateRequest, await request.body())
    model = service.model(asked.model, Kind.CHAT, Kind.COMPLETION)
    if not asked.prompt:
        return Working(_loading(service, model, asked, _generate_piece))
    _check_abilities(asked, model, await card_of(model))
    if asked.raw or model.kind is Kind.COMPLETION:
        if asked.system:
            raise Problem(400, f"system: {model.name} only continues text", code="unsupported-field", field="system")
        body = asked.as_completion(asked.prompt)
        return Working(_answering(service, model, asked, Protocol.COMPLETIONS, body, _generate_piece))
    body = asked.as_chat(model.with_system(asked.messages))
    return Working(_answering(service, model, asked, Protocol.CHAT, body, _generate_piece))


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
    clock = _Clock()
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
        clock = _Clock()
        unload = asked.keep_alive == 0
        if not unload or any(state.model is model for state in service.pool.loaded):
            async with service.pool.lease(model.name, keep_seconds=asked.keep_alive):
                clock.loaded()
        reason = "unload" if unload else "load"
        await out.json({**_about(asked, model), **piece("", "", []), "done": True, "done_reason": reason})

    return work


def _answering(
    service: Service, model: ServedModel, asked: Asked, protocol: Protocol, body: dict[str, Any], piece: Piece
) -> Callable[[Output], Any]:
    kinds = (Kind.CHAT,) if isinstance(asked, ChatRequest) else (Kind.CHAT, Kind.COMPLETION)

    async def work(out: Output) -> None:
        clock = _Clock()
        async with service.pool.lease(model.name, *kinds, keep_seconds=asked.keep_alive) as worker:
            clock.loaded()
            _check_context(asked, worker)
            await _answer(service, worker, _Told(asked, protocol, piece, clock), body, out)

    return work


@dataclass(frozen=True, slots=True)
class _Told:
    """A request, and how its answer is told."""

    asked: Asked
    protocol: Protocol
    piece: Piece
    clock: _Clock


async def _answer(service: Service, worker: Worker, told: _Told, body: dict[str, Any], out: Output) -> None:
    asked, merged = told.asked, Merged()
    async with service.answering(worker, told.protocol, body, asked.sampling) as answer:
        async for event in answer:
            merged.add(event.data)
            if asked.wants_stream and (piece := _next(event.data, told.piece)):
                await _line({**_about(asked, worker.model), **piece, "done": False}, out)
    service.metrics.timings(worker.model.name, merged.timings)
    (choice,) = merged.as_chat(answer.ending)["choices"]
    message = choice["message"]
    calls = _calls(message.get("tool_calls") or [])
    about = _about(asked, worker.model)
    end = {"done": True, **_end(choice, merged, answer.ending), **told.clock.told(merged.timings)}
    if not asked.wants_stream:
        logprobs = {"logprobs": choice["logprobs"]["content"]} if choice["logprobs"] else {}
        piece = told.piece(message.get(CONTENT) or "", message.get(REASONING) or "", calls)
        await out.json({**about, **piece, **logprobs, **end})
        return
    if calls:
        await _line({**about, **told.piece("", "", calls), "done": False}, out)
    await _line({**about, **told.piece("", "", []), **end}, out)
    await out.close()


async def _line(data: dict[str, Any], out: Output) -> None:
    if not out.media_type:
        await out.open(LINES)
    await out.write(encoded(data) + b"\n")


def _next(data: dict[str, Any], piece: Piece) -> dict[str, Any]:
    """What an event adds to the answer's text; calls are told when they are whole."""
    choices = data.get("choices")
    if not choices:
        return {}
    choice = choices[0]
    delta = choice.get("delta") or {}
    text, thought = delta.get(CONTENT) or choice.get("text") or "", delta.get(REASONING) or ""
    if not text and not thought:
        return {}
    logprobs = (choice.get("logprobs") or {}).get("content")
    return {**piece(text, thought, []), **({"logprobs": logprobs} if logprobs else {})}


def _end(choice: dict[str, Any], merged: Merged, ending: Ending) -> dict[str, Any]:
    """Why it ended, and how much it was. Ollama's clients know no other reasons than these two."""
    reason = "length" if ending.reason or choice["finish_reason"] == "length" else "stop"
    ours = {"edgellm": ending.as_field()} if ending.reason else {}
    counts = {
        "prompt_eval_count": int(merged.usage.get("prompt_tokens", 0)),
        "eval_count": int(merged.usage.get("completion_tokens", 0)),
    }
    return {"done_reason": reason, **ours, **counts}


def _calls(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls with their arguments as objects; one that a limit cut off is none."""
    whole = []
    for index, call in enumerate(calls):
        try:
            arguments = json.loads(call["function"]["arguments"] or "{}")
        except ValueError:
            continue
        function = {"index": index, "name": call["function"]["name"], "arguments": arguments}
        whole.append({"id": call["id"], "function": function})
    return whole


def _chat_piece(text: str, thought: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thought:
        message["thinking"] = thought
    if calls:
        message["tool_calls"] = calls
    return {"message": message}


def _generate_piece(text: str, thought: str, _: list[dict[str, Any]]) -> dict[str, Any]:
    return {"response": text, **({"thinking": thought} if thought else {})}


def _about(asked: Asked, model: ServedModel) -> dict[str, Any]:
    now = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
    return {"model": asked.model or model.name, "created_at": now}


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


class _Clock:
    """Times of a request, in nanoseconds."""

    def __init__(self) -> None:
        self._begin = time.perf_counter_ns()
        self._load = 0

    def loaded(self) -> None:
        """The model is there."""
        self._load = time.perf_counter_ns() - self._begin

    def told(self, timings: dict[str, Any] | None = None) -> dict[str, int]:
        """The times so far, with those that the worker tells."""
        told = {"total_duration": time.perf_counter_ns() - self._begin, "load_duration": self._load}
        if timings is not None:
            told["prompt_eval_duration"] = _nanoseconds(timings, "prompt_ms")
            told["eval_duration"] = _nanoseconds(timings, "predicted_ms")
        return told


def _nanoseconds(timings: dict[str, Any], name: str) -> int:
    return max(1, round(float(timings.get(name) or 0) * 1e6))  # clients divide by it
