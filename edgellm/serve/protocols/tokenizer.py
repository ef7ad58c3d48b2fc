"""A model's tokenizer over HTTP, in vLLM's form, so that lm-eval needs no tokenizer of its own.

Names of control tokens in a text become those tokens, as with the tokenizers of Hugging Face.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgellm.errors import BadRequest
from edgellm.serve.http.api import Api
from edgellm.serve.http.openapi import takes
from edgellm.serve.http.problems import Problem
from edgellm.serve.protocols.openai.words import error, error_event
from edgellm.serve.service import Service, service_of
from edgellm.serve.workers.catalog import ModelKind, ServedModel
from edgellm.wire.body import Body, parse
from edgellm.wire.fields import LABELS, Count, Name
from edgellm.wire.openai_requests import ChatMessage

# A million characters take less than a second, and no context holds more.
Prompt = Annotated[str, Field(max_length=1_000_000)]


class TokenizeRequest(Body):
    """POST /tokenize: a text, or the messages of a chat, which the model's template turns into one.

    `add_special_tokens` adds what the vocabulary puts before a text: by default for prompts, and not for messages.
    """

    ignored = LABELS
    model: Name | None = None
    prompt: Prompt | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=10_000)] | None = None
    add_special_tokens: bool | None = None

    @model_validator(mode="after")
    def _has_one(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("either prompt or messages is needed")
        return self


class DetokenizeRequest(Body):
    """POST /detokenize."""

    ignored = LABELS
    model: Name | None = None
    tokens: Annotated[list[Count], Field(max_length=1_000_000)]


@takes(TokenizeRequest)
async def tokenize(request: Request) -> Response:
    """POST /tokenize."""
    service, asked = service_of(request), parse(TokenizeRequest, await request.body())
    model = _model(service, asked.model)
    async with service.scoring.lease(model) as worker:
        if asked.prompt is not None:
            tokens = await worker.tokenize(asked.prompt, bos=asked.add_special_tokens is not False)
        else:
            messages = model.with_system([message.for_engine() for message in asked.messages or ()])
            bos, template = asked.add_special_tokens is True, model.chat_template
            tokens = await worker.tokenize_messages(messages, bos=bos, template=template)
        answer = {"tokens": tokens, "count": len(tokens), "max_model_len": worker.info.n_ctx}
    return JSONResponse(answer)


@takes(DetokenizeRequest)
async def detokenize(request: Request) -> Response:
    """POST /detokenize."""
    service, asked = service_of(request), parse(DetokenizeRequest, await request.body())
    async with service.scoring.lease(_model(service, asked.model)) as worker:
        try:
            return JSONResponse({"prompt": await worker.detokenize(asked.tokens)})
        except BadRequest as error:
            raise Problem(400, error.what, code=error.code, field="tokens") from error


async def tokenizer_info(request: Request) -> Response:
    """GET /tokenizer_info, with `?model=NAME` where there are several."""
    service = service_of(request)
    model = _model(service, request.query_params.get("model"))
    async with service.scoring.lease(model) as worker:
        info = worker.info
    return JSONResponse(
        {
            "tokenizer_class": "GGUF",
            "model": model.name,
            "vocab_size": info.n_vocab,
            "model_max_length": info.n_ctx,
            "bos_token": info.bos,
            "eos_token": info.eos,
            "pad_token": info.pad,
            "add_bos_token": info.adds_bos,
            "chat_template": model.chat_template or info.chat_template,
        }
    )


def _model(service: Service, name: str | None) -> ServedModel:
    """The model of that name; without a name the only one that writes text: tokens of another are wrong tokens."""
    able = [model for model in service.pool.catalog if model.kind is not ModelKind.EMBEDDING] or [*service.pool.catalog]
    if name is None and len(able) > 1:
        message = "several models are served: name one in model (lm-eval cannot; serve one alone for it)"
        raise Problem(400, message, code="missing-field", field="model")
    return service.model(able[0].name if name is None else name)


ROUTES = [
    Route("/tokenize", tokenize, methods=["POST"]),
    Route("/detokenize", detokenize, methods=["POST"]),
    Route("/tokenizer_info", tokenizer_info, methods=["GET"]),
]
API = Api("tokenizer", ROUTES, tuple(route.path for route in ROUTES), error, error_event)
