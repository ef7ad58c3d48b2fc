"""GET /: the status page with a chat for browsers, one line for everybody else, which Ollama's clients look for.

response = await home(request)

The page is one file without anything from elsewhere; its policy lets nothing run or load but what is in it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from edgellm.serve.openapi import gives

PAGE = Path(__file__).with_name("page.html")


@gives("text/plain", "text/html")
async def home(request: Request) -> Response:
    """GET /: what a browser asks for is HTML."""
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


ROUTES = [Route("/", home, methods=["GET"])]


@cache
def _page() -> tuple[bytes, str]:
    """The page, and the policy that names its one script and its one style by their hashes."""
    content = PAGE.read_bytes()
    policy = (
        f"default-src 'none'; script-src {_hash(content, b'script')}; style-src {_hash(content, b'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return content, policy


def _hash(content: bytes, tag: bytes) -> str:
    (inside,) = re.findall(b"<%b>(.*?)</%b>" % (tag, tag), content, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inside).digest()).decode()}'"
