"""GET /: a page with chats and numbers for browsers; other clients get the one line that Ollama's clients look for.

response = await home(request)

The page is one answer, joined from page.html, page.css and the scripts beside it. It loads nothing from elsewhere; its
policy permits only what is in it.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from edgellm.engine.sampling import OPTIONS
from edgellm.serve.http.openapi import gives
from edgellm.serve.page.chats import are_open
from edgellm.serve.service import Service, service_of
from edgellm.serve.workers.catalog import ServedModel

FOLDER = Path(__file__).parent
STYLE = "page.css"
# In this order they become one script.
SCRIPTS = (
    "elements.js",
    "markdown.js",
    "server.js",
    "status.js",
    "settings.js",
    "calls.js",
    "chats.js",
    "messages.js",
    "passage.js",
    "documents.js",
    "page.js",
)


@gives("text/plain", "text/html")
async def home(request: Request) -> Response:
    """GET /: browsers ask for HTML."""
    if "text/html" not in request.headers.get("accept", ""):
        return PlainTextResponse("Ollama is running", headers={"Vary": "Accept"})
    content, policy = _page()
    headers = {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept",
        "X-Content-Type-Options": "nosniff",
    }
    return HTMLResponse(content, headers=headers)


async def facts(request: Request) -> Response:
    """GET /page.json: what the page shows besides the status.

    Who keeps chats, each model's own settings, the most bytes of a document, null where there are no documents, and the
    tools that the server runs.
    """
    service = service_of(request)
    has_documents = service.documents_for(request) is not None
    found = {
        "chats": are_open(request),
        "models": {model.name: _own_settings(model) for model in service.pool.catalog},
        "max_upload": service.options.max_upload if has_documents else None,
        "tools": _tools(service),
    }
    return JSONResponse(found, headers={"Cache-Control": "no-store"})


ROUTES = [Route("/", home, methods=["GET"]), Route("/page.json", facts, methods=["GET"])]


def _tools(service: Service) -> list[dict[str, str]]:
    """The tools that answers may use, with what they may touch."""
    tools = service.tools.tools.values() if service.tools else ()
    return [{"name": tool.name, "risk": tool.risk.value, "description": tool.description[:500]} for tool in tools]


def _own_settings(model: ServedModel) -> dict[str, Any]:
    """The system message and the sampling of requests that say nothing else."""
    defaults = {option.name: option.default for option in OPTIONS.values() if option.name != "seed"}
    return {"system": model.system, "sampling": {**defaults, **model.sampling}}


@cache
def _page() -> tuple[bytes, str]:
    """The page, and the policy that names its one script and its one style by their hashes."""
    style = (FOLDER / STYLE).read_text(encoding="utf-8")
    script = "".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    page = (FOLDER / "page.html").read_text(encoding="utf-8")
    page = page.replace("<style></style>", f"<style>{style}</style>").replace(
        "<script></script>", f"<script>{script}</script>"
    )
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page.encode(), policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
