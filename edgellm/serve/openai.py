"""OpenAI's endpoints: models, chat, completions, embeddings.

routes = openai.ROUTES
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgellm.serve.answers import Answer, Ending, Protocol
from edgellm.serve.catalog import Kind, ServedModel
from edgellm.serve.echo import echo
from edgellm.serve.embedding import embed
from edgellm.serve.encoding import encoded
from edgellm.serve.logprobs import as_chat, as_completion
from edgellm.serve.merging import Merged, Usage
from edgellm.serve.openai_requests import ChatRequest, CompletionRequest, EmbeddingRequest
from edgellm.serve.openapi import takes
from edgellm.serve.requests import parsed
from edgellm.serve.responding import Output, Working
from edgellm.serve.service import Service, check_tokens, service_of
from edgellm.serve.upstream import Event
from edgellm.serve.worker import Worker

Asked = ChatRequest | CompletionRequest
END = b"data: [DONE]\n\n"


async def list_models(request: Request) -> Response:
    """GET /v1/models."""
    service = service_of(request)
    return JSONResponse({"object": "list", "data": [_described(service, model) for model in service.pool.catalog]})


async def get_model(request: Request) -> Response:
    """GET /v1/models/NAME."""
    service = service_of(request)
    return JSONResponse(_described(service, service.model(request.path_params["name"])))


@takes(ChatRequest, streams=True)
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


@takes(CompletionRequest, streams=True)
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


@takes(EmbeddingRequest)
async def embeddings(request: Request) -> Response:
    """POST /v1/embeddings: `encoding_format` is honoured, or documents would be indexed as nothing."""
    service, asked = service_of(request), parsed(EmbeddingRequest, await request.body())
    model = service.model(asked.model, Kind.EMBEDDING)
    check_tokens(asked.input, model, "input")

    async def work(out: Output) -> None:
        async with service.pool.lease(model.name, Kind.EMBEDDING) as worker:
            form = asked.encoding_format or "float"
            reply = await embed(worker, asked.texts, truncate=bool(asked.truncate), encoding_format=form)
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
    asked: Asked,
    body: dict[str, Any],
    whole: Callable[[Merged, Ending], dict[str, Any]],
    out: Output,
) -> None:
    async with service.answering(worker, protocol, body, asked, out) as answer:
        if asked.stream:
            await _stream(service, worker, answer, asked, out)
        else:
            await _merge(service, worker, answer, asked, whole, out)


async def _merge(
    service: Service, worker: Worker, answer: Answer, asked: Asked, whole: Callable[[Merged, Ending], Any], out: Output
) -> None:
    merged = Merged(asked.n or 1, asked.n_top)
    async for event in answer:
        merged.add(event.data)
    service.metrics.timings(worker.model.name, merged.timings)
    await out.json(whole(merged, answer.ending))


async def _stream(service: Service, worker: Worker, answer: Answer, asked: Asked, out: Output) -> None:
    """Pass the events on as they are, but the last: usage and timings belong on the one that has the finish reason.

    AnythingLLM stops to read there.
    """
    events = _Chunks(service, worker, asked, answer.ending, out)
    async for event in answer:
        if not out.media_type:
            out.open()
        events.add(event)
    events.end()
    await out.close()


class _Chunks:
    """The chunks of a stream; of several choices each ends by itself."""

    def __init__(self, service: Service, worker: Worker, asked: Asked, ending: Ending, out: Output) -> None:
        self._metrics, self._model = service.metrics, worker.model.name
        self._asked, self._ending, self._out = asked, ending, out
        self._usage = Usage(asked.n or 1)
        self._finish: dict[str, Any] | None = None
        self._about: dict[str, Any] = {}
        self._n_chars: Counter[int] = Counter()

    def add(self, event: Event) -> None:
        """The next event of the worker."""
        data = event.data
        if not data.get("choices"):  # the numbers of the choice that has just ended
            self._end_choice(data)
            return
        if self._asked.n_top is not None:
            self._write_logprobs(data["choices"][0])
        if data["choices"][0].get("finish_reason"):
            self._finish = data
            if "usage" in data:
                self._end_choice(data)
        elif self._asked.n_top is not None:
            self._write(data)
        else:
            self._out.write(event.raw + b"\n\n")

    def end(self) -> None:
        """The last lines."""
        self._end_choice({})
        if self._asked.wants_usage_chunk:
            self._write({**self._about, "choices": [], "usage": self._usage.as_field()})
        self._out.write(END)

    def _end_choice(self, numbers: dict[str, Any]) -> None:
        if self._finish is None:
            return
        finish, self._finish = self._finish, None
        if usage := numbers.get("usage"):
            self._usage.add(usage, finish["choices"][0].get("index", 0))
        timings = numbers.get("timings") or {}
        self._metrics.timings(self._model, timings)
        about = {"usage": self._usage.as_field(), **({"timings": timings} if timings else {})}
        ours = {"edgellm": self._ending.as_field()} if self._ending.reason else {}
        self._about = {name: finish[name] for name in ("id", "object", "created", "model") if name in finish}
        self._write({**finish, **about, **ours})

    def _write(self, data: dict[str, Any]) -> None:
        self._out.write(b"data: " + encoded(data) + b"\n\n")

    def _write_logprobs(self, choice: dict[str, Any]) -> None:
        entries = (choice.get("logprobs") or {}).get("content")
        n_top = self._asked.n_top
        if not entries or n_top is None:
            return
        if isinstance(self._asked, ChatRequest):
            choice["logprobs"] = {"content": as_chat(entries, n_top), "refusal": None}
            return
        choice["logprobs"] = as_completion(entries, n_top, self._n_chars[choice["index"]])
        self._n_chars[choice["index"]] += len(choice["text"])


ROUTES = [
    Route("/v1/models", list_models, methods=["GET"]),
    Route("/v1/models/{name:path}", get_model, methods=["GET"]),
    Route("/v1/chat/completions", chat, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/embeddings", embeddings, methods=["POST"]),
]
