"""Ollama's endpoints about models: which exist, what they are, which are loaded.

To pull a model that is here succeeds at once, because scripts begin with it. Nothing else changes models over HTTP.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgellm.errors import ModelNotFound
from edgellm.models.fit.memory import estimate
from edgellm.serve.http.openapi import takes
from edgellm.serve.http.problems import Problem
from edgellm.serve.http.response import LINES
from edgellm.serve.protocols.ollama.requests import PullRequest, ShowRequest
from edgellm.serve.service import Service, service_of
from edgellm.serve.workers.catalog import ServedModel
from edgellm.serve.workers.model_card import ModelCard, card_of
from edgellm.serve.workers.pool import Loaded
from edgellm.version import __version__
from edgellm.wire.body import parse
from edgellm.wire.encoding import encoded

# The version of Ollama's API that edgellm follows; clients compare it with what they need (Codex with 0.13.4).
OLLAMA_VERSION = "0.20.0"
# The expiry of models that stay loaded: the last day that every client's calendar has.
NEVER = "9999-12-31T23:59:59Z"
LONGEST = timedelta(days=3650)


async def version(_: Request) -> Response:
    """GET /api/version."""
    return JSONResponse({"version": OLLAMA_VERSION, "edgellm": __version__})


async def tags(request: Request) -> Response:
    """GET /api/tags."""
    service = service_of(request)
    named = [{**_listed(model), "name": name, "model": name} for name, model in await service.with_documents()]
    return JSONResponse({"models": [*map(_listed, service.pool.catalog), *named]})


@takes(ShowRequest)
async def show(request: Request) -> Response:
    """POST /api/show: `context_length` is what a request gets, not the trained context."""
    service, asked = service_of(request), parse(ShowRequest, await request.body())
    model, _ = await service.asked(request, asked.wanted)
    card = await card_of(model, arrays=bool(asked.verbose))
    return JSONResponse(_shown(model, card, service.pool.expected(model).n_ctx))


async def loaded(request: Request) -> Response:
    """GET /api/ps."""
    service = service_of(request)
    return JSONResponse({"models": [_running(service, state) for state in service.pool.loaded]})


@takes(PullRequest, lines=True)
async def pull(request: Request) -> Response:
    """POST /api/pull: succeeds for a model that is here; others are pulled on the machine itself."""
    asked = parse(PullRequest, await request.body())
    try:
        service_of(request).model(asked.wanted)
    except ModelNotFound as error:
        how = f"nothing is downloaded over HTTP: type edgellm pull {asked.wanted[:60]} on the machine itself"
        raise Problem(404, f"{error.what}; {how}", code="model_not_found", field="model") from error
    steps = [{"status": "pulling manifest"}, {"status": "success"}]
    if asked.stream is False:
        return JSONResponse(steps[-1])
    return Response(b"".join(encoded(step) + b"\n" for step in steps), media_type=LINES)


async def managed(request: Request) -> Response:
    """Refuse to change the models on disk over HTTP."""
    what = request.url.path.removeprefix("/api/").split("/")[0]
    words = {"delete": "edgellm rm NAME", "create": "edgellm import PATH --name NAME",
             "copy": "edgellm import PATH --name NAME", "blobs": "edgellm import PATH --name NAME"}  # fmt: skip
    how = f"type on the machine itself: {words[what]}" if what in words else "edgellm publishes no models"
    raise Problem(403, f"{what}: models are not managed over HTTP; {how}", code="not-over-http")


ROUTES = [
    Route("/api/version", version, methods=["GET"]),
    Route("/api/tags", tags, methods=["GET"]),
    Route("/api/show", show, methods=["POST"]),
    Route("/api/ps", loaded, methods=["GET"]),
    Route("/api/pull", pull, methods=["POST"]),
    *(Route(f"/api/{name}", managed, methods=["POST"]) for name in ("create", "copy", "push")),
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
    shown = {
        "parameters": "\n".join([f"num_ctx {n_ctx}", *sampling]),
        "template": card.template,
        "details": _details(model),
        "model_info": facts,
        "capabilities": list(card.capabilities),
        "modified_at": _time(datetime.fromtimestamp(model.modified, timezone.utc)),
    }
    license_ = card.facts.get("general.license")
    return {
        **shown,
        **({"system": model.system} if model.system else {}),
        **({"license": license_} if license_ else {}),
    }


def _running(service: Service, state: Loaded) -> dict[str, Any]:
    listed = _listed(state.model)
    del listed["modified_at"]
    plan = service.pool.expected(state.model)
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
    """Identifies a file by name, size and time; hashing gigabytes for a listing would take minutes."""
    return hashlib.sha256(f"{model.name}\0{model.n_bytes}\0{model.modified}".encode()).hexdigest()


def _time(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")
