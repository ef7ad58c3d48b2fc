"""Ollama's endpoints about models: which there are, what they are, which are loaded; and what is not done over HTTP.

routes = ollama_models.ROUTES
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgellm import __version__
from edgellm.models.memory import estimate
from edgellm.serve.catalog import ServedModel
from edgellm.serve.model_card import ModelCard, card_of
from edgellm.serve.ollama_requests import ShowRequest
from edgellm.serve.openapi import takes
from edgellm.serve.pool import Loaded
from edgellm.serve.problems import Problem
from edgellm.serve.requests import parsed
from edgellm.serve.service import Service, service_of

# The state of Ollama's API that is followed here: clients compare it with what they need.
OLLAMA_VERSION = "0.12.11"
# For models that are kept always; the last day that every client's calendar has.
NEVER = "9999-12-31T23:59:59Z"
LONGEST = timedelta(days=3650)


async def version(_: Request) -> Response:
    """GET /api/version."""
    return JSONResponse({"version": OLLAMA_VERSION, "edgellm": __version__})


async def tags(request: Request) -> Response:
    """GET /api/tags."""
    return JSONResponse({"models": [_listed(model) for model in service_of(request).pool.catalog]})


@takes(ShowRequest)
async def show(request: Request) -> Response:
    """POST /api/show: `context_length` is what a request really gets."""
    service, asked = service_of(request), parsed(ShowRequest, await request.body())
    model = service.model(asked.wanted)
    card = await card_of(model, arrays=bool(asked.verbose))
    return JSONResponse(_shown(model, card, await service.context_of(model)))


async def loaded(request: Request) -> Response:
    """GET /api/ps."""
    service = service_of(request)
    return JSONResponse({"models": [_running(service, state) for state in service.pool.loaded]})


async def managed(request: Request) -> Response:
    """What changes the models on disk: nobody does that over the network."""
    what = request.url.path.removeprefix("/api/").split("/")[0]
    words = {"pull": "edgellm pull NAME", "delete": "edgellm rm NAME", "create": "edgellm import PATH --name NAME",
             "copy": "edgellm import PATH --name NAME", "blobs": "edgellm import PATH --name NAME"}  # fmt: skip
    how = f"type on the machine itself: {words[what]}" if what in words else "edgellm publishes no models"
    raise Problem(403, f"{what}: models are not managed over HTTP; {how}", code="not-over-http")


ROUTES = [
    Route("/api/version", version, methods=["GET"]),
    Route("/api/tags", tags, methods=["GET"]),
    Route("/api/show", show, methods=["POST"]),
    Route("/api/ps", loaded, methods=["GET"]),
    *(Route(f"/api/{name}", managed, methods=["POST"]) for name in ("pull", "create", "copy", "push")),
    Route("/api/delete", managed, methods=["DELETE"]),
    Route("/api/blobs/{digest}", managed, methods=["HEAD", "POST"]),
]


def _listed(model: ServedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": _time(datetime.fromtimestamp(model.modified, timezone.utc)),
        "size": model.n_bytes,
        "digest": _digest(model),
        "details": _details(model),
    }


def _shown(model: ServedModel, card: ModelCard, n_ctx: int) -> dict[str, Any]:
    outline = model.outline
    sampling = [f"{name} {value}" for name, value in model.sampling.items()]
    facts = {
        **card.facts,
        "general.architecture": outline.architecture,
        "general.parameter_count": outline.n_params,
        f"{outline.architecture}.context_length": n_ctx,
        f"{outline.architecture}.embedding_length": outline.n_embd,
        "edgellm.n_ctx_train": outline.n_ctx_train,
    }
    told = {
        "parameters": "\n".join([f"num_ctx {n_ctx}", *sampling]),
        "template": card.template,
        "details": _details(model),
        "model_info": facts,
        "capabilities": list(card.capabilities),
        "modified_at": _time(datetime.fromtimestamp(model.modified, timezone.utc)),
    }
    license_ = card.facts.get("general.license")
    return {**told, **({"system": model.system} if model.system else {}), **({"license": license_} if license_ else {})}


def _running(service: Service, state: Loaded) -> dict[str, Any]:
    listed = _listed(state.model)
    del listed["modified_at"]
    plan = state.worker.plan if state.worker else service.pool.plan(state.model)
    more = {
        "size": estimate(state.model.outline, plan).total,
        "size_vram": 0,
        "context_length": plan.n_ctx,
        "expires_at": _expiry(service, state),
    }
    return {**listed, **more}


def _expiry(service: Service, state: Loaded) -> str:
    keep = service.options.idle_seconds if state.keep_seconds is None else state.keep_seconds
    if keep is None or keep < 0 or keep > LONGEST.total_seconds():
        return NEVER
    idle = service.pool.idle_seconds(state) or 0.0
    return _time(datetime.now(timezone.utc) + timedelta(seconds=max(0.0, keep - idle)))


def _details(model: ServedModel) -> dict[str, Any]:
    n_params = model.outline.n_params
    size = f"{n_params / 1e9:.1f}B" if n_params >= 1e9 else f"{n_params / 1e6:.2f}M"
    family = model.outline.architecture
    return {
        "parent_model": "", "format": "gguf", "family": family, "families": [family],
        "parameter_size": size, "quantization_level": model.outline.quant,
    }  # fmt: skip


def _digest(model: ServedModel) -> str:
    """Tells a file from another by name, size and time; hashing gigabytes for a listing would take minutes."""
    return hashlib.sha256(f"{model.name}\0{model.n_bytes}\0{model.modified}".encode()).hexdigest()


def _time(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")
