"""LM Studio's lists of models; its clients use OpenAI's endpoints for everything else."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgellm.errors import EdgellmError
from edgellm.serve.http.api import Api
from edgellm.serve.protocols.openai.words import error, error_event
from edgellm.serve.service import Service, service_of
from edgellm.serve.workers.catalog import ModelKind, ServedModel
from edgellm.serve.workers.model_card import ModelCard, card_of


async def list_models(request: Request) -> Response:
    """GET /api/v0/models."""
    service = service_of(request)
    return JSONResponse({"object": "list", "data": [await _model(service, model) for model in service.pool.catalog]})


async def get_model(request: Request) -> Response:
    """GET /api/v0/models/NAME."""
    service = service_of(request)
    return JSONResponse(await _model(service, service.model(request.path_params["name"])))


async def list_models_v1(request: Request) -> Response:
    """GET /api/v1/models."""
    service = service_of(request)
    return JSONResponse({"models": [await _model_v1(service, model) for model in service.pool.catalog]})


ROUTES = [
    Route("/api/v0/models", list_models, methods=["GET"]),
    Route("/api/v0/models/{name:path}", get_model, methods=["GET"]),
    Route("/api/v1/models", list_models_v1, methods=["GET"]),
]
API = Api("lmstudio", ROUTES, ("/api/v0/", "/api/v1/"), error, error_event)


async def _model(service: Service, model: ServedModel) -> dict[str, Any]:
    """`max_context_length` is what a request gets, not the trained context: clients fill it."""
    n_ctx, is_loaded = _context(service, model)
    card = await _card(model)
    listed = {
        "id": model.name,
        "object": "model",
        "type": "embeddings" if model.kind is ModelKind.EMBEDDING else "llm",
        "publisher": str(card.facts.get("general.organization") or ""),
        "arch": model.outline.architecture,
        "compatibility_type": "gguf",
        "quantization": model.outline.quant,
        "state": "loaded" if is_loaded else "not-loaded",
        "max_context_length": n_ctx,
        "capabilities": ["tool_use"] if card.has_tools else [],
    }
    return {**listed, **({"loaded_context_length": n_ctx} if is_loaded else {})}


async def _model_v1(service: Service, model: ServedModel) -> dict[str, Any]:
    n_ctx, is_loaded = _context(service, model)
    card = await _card(model)
    outline = model.outline
    instances = [{"id": model.name, "config": {"context_length": n_ctx}}] if is_loaded else []
    can = {"capabilities": {"vision": False, "trained_for_tool_use": card.has_tools}}
    return {
        "type": "embedding" if model.kind is ModelKind.EMBEDDING else "llm",
        "publisher": str(card.facts.get("general.organization") or ""),
        "key": model.name,
        "display_name": model.name,
        "architecture": outline.architecture,
        "quantization": {"name": outline.quant, "bits_per_weight": round(8 * outline.n_bytes / outline.n_params, 2)},
        "size_bytes": model.n_bytes,
        "params_string": str(card.facts.get("general.size_label") or "") or None,
        "loaded_instances": instances,
        "max_context_length": n_ctx,
        "format": "gguf",
        **({} if model.kind is ModelKind.EMBEDDING else can),
    }


async def _card(model: ServedModel) -> ModelCard:
    """The card; an empty one if the file was removed or damaged, which must not hide the other models."""
    try:
        return await card_of(model)
    except EdgellmError:
        return ModelCard(model.kind, {}, "")


def _context(service: Service, model: ServedModel) -> tuple[int, bool]:
    return service.pool.expected(model).n_ctx, service.pool.state(model).worker is not None
