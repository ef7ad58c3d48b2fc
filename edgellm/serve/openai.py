"""OpenAI's endpoints: models, chat, completions, embeddings.

routes = openai.ROUTES
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgellm.serve.answers import Answer, Ending, Protocol
from edgellm.serve.catalog import Kind, ServedModel
from edgellm.serve.echo import echo
from edgellm.serve.merging import Merged
from edgellm.serve.openai_requests import ChatRequest, CompletionRequest, EmbeddingRequest, Generation
from edgellm.serve.problems import TOO_LONG, Problem
from edgellm.serve.requests import parsed
from edgellm.serve.responding import Output, Working, encoded
from edgellm.serve.service import Service, service_of
from edgellm.serve.shortening import shorter_messages, shorter_prompt
from edgellm.serve.upstream import Event, UpstreamRefused
from edgellm.serve.worker import Worker

END = b"data: [DONE]\n\n"


async def list_models(request: Request) -> Response:
    """GET /v1/models."""
    service = service_of(request)
    return JSONResponse({"object": "list", "data": [_described(service, model) for model in service.pool.catalog]})


async def get_model(request: Request) -> Response:
    """GET /v1/models/NAME."""
    service = service_of(request)
    return JSONResponse(_described(service, service.model(request.path_params["name"])))


async def chat(request: Request) -> Response:
    """POST /v1/chat/completions."""
    service, asked = service_of(request), parsed(ChatRequest, await request.body())
    model = service.model(asked.model, Kind.CHAT)

    async def work(out: Output) -> None:
        async with service.pool.lease(model.name, Kind.CHAT) as worker:
            body = asked.for_worker()
            body["messages"] = model.with_system(body["messages"])
            await _answer(service, worker, Protocol.CHAT, asked, body, Merged.as_chat, out)

    return Working(work)


async def completions(request: Request) -> Response:
    """POST /v1/completions."""
    service, asked = service_of(request), parsed(CompletionRequest, await request.body())
    model = service.model(asked.model, Kind.CHAT, Kind.COMPLETION)

    async def work(out: Output) -> None:
        if asked.echo:
            await echo(service, model, asked, out)
            return
        async with service.pool.lease(model.name, Kind.CHAT, Kind.COMPLETION) as worker:
            await _answer(service, worker, Protocol.COMPLETIONS, asked, asked.for_worker(), Merged.as_completion, out)

    return Working(work)


async def embeddings(request: Request) -> Response:
    """POST /v1/embeddings: `encoding_format` is honoured, or documents would be indexed as nothing."""
    service, asked = service_of(request), parsed(EmbeddingRequest, await request.body())
    model = service.model(asked.model, Kind.EMBEDDING)

    async def work(out: Output) -> None:
        async with service.pool.lease(model.name, Kind.EMBEDDING) as worker:
            body = {"model": model.name, **asked.given("model", "user", "truncate")}
            reply = await worker.upstream.post("/v1/embeddings", body)
            service.metrics.embedded(model.name, reply)
            await out.json(reply)

    return Working(work)


def _described(service: Service, model: ServedModel) -> dict[str, Any]:
    loaded = {state.model.name: state for state in service.pool.loaded}.get(model.name)
    n_ctx = loaded.worker.plan.n_ctx if loaded and loaded.worker else None
    meta = {
        "n_ctx": n_ctx, "n_ctx_train": model.outline.n_ctx_train, "n_params": model.outline.n_params,
        "size": model.n_bytes, "quant": model.outline.quant, "kind": model.kind.value, "loaded": loaded is not None,
    }  # fmt: skip
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "edgellm", "meta": meta}


async def _answer(
    service: Service,
    worker: Worker,
    protocol: Protocol,
    asked: Generation,
    body: dict[str, Any],
    whole: Callable[[Merged, Ending], dict[str, Any]],
    out: Output,
) -> None:
    while True:
        try:
            async with service.answering(worker, protocol, body, asked) as answer:
                if asked.stream:
                    await _stream(service, worker, answer, asked, out)
                else:
                    await _merge(service, worker, answer, whole, out)
                return
        except UpstreamRefused as error:
            if error.error.get("type") != TOO_LONG or not asked.truncate:
                raise
            body = await _shortened(worker, body, error)


async def _shortened(worker: Worker, body: dict[str, Any], error: UpstreamRefused) -> dict[str, Any]:
    """The body without the oldest part of its prompt: the request asked for that."""
    excess = int(error.error["n_prompt_tokens"]) - int(error.error["n_ctx"]) + 1
    if "messages" in body:
        return {**body, "messages": shorter_messages(body["messages"], excess, int(error.error["n_prompt_tokens"]))}
    return {**body, "prompt": await shorter_prompt(worker.upstream, body["prompt"], int(error.error["n_ctx"]))}


async def _merge(
    service: Service, worker: Worker, answer: Answer, whole: Callable[[Merged, Ending], dict[str, Any]], out: Output
) -> None:
    merged = Merged()
    async for event in answer:
        merged.add(event.data)
    service.metrics.timings(worker.model.name, merged.timings)
    await out.json(whole(merged, answer.ending))


async def _stream(service: Service, worker: Worker, answer: Answer, asked: Generation, out: Output) -> None:
    """Pass the events on as they are, but the last: usage and timings belong on the one that has the finish reason.

    AnythingLLM stops to read there.
    """
    finish: Event | None = None
    async for event in answer:
        if not out.media_type:
            await out.open()
        data = event.data
        if finish is not None:
            about = {name: data[name] for name in ("usage", "timings") if name in data}
            await _finish(finish, about, answer.ending, out)
            service.metrics.timings(worker.model.name, about.get("timings") or finish.data.get("timings") or {})
            finish = None
        if not data.get("choices"):
            if asked.wants_usage_chunk:
                await out.write(event.raw + b"\n\n")
        elif data["choices"][0].get("finish_reason"):
            finish = event
        else:
            await out.write(event.raw + b"\n\n")
    if finish is not None:
        await _finish(finish, {}, answer.ending, out)
        service.metrics.timings(worker.model.name, finish.data.get("timings") or {})
    await out.write(END)
    await out.close()


async def _finish(event: Event, about: dict[str, Any], ending: Ending, out: Output) -> None:
    ours = {"edgellm": ending.as_field()} if ending.reason else {}
    await out.write(b"data: " + encoded({**event.data, **about, **ours}) + b"\n\n")


def unsupported(field: str, why: str) -> Problem:
    """A field that is known and cannot be honoured."""
    return Problem(400, f"{field}: {why}", code="unsupported-field", field=field)


ROUTES = [
    Route("/v1/models", list_models, methods=["GET"]),
    Route("/v1/models/{name:path}", get_model, methods=["GET"]),
    Route("/v1/chat/completions", chat, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/embeddings", embeddings, methods=["POST"]),
]
