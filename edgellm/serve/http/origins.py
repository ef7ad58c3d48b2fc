"""Which web pages may use the server, and the headers that let a browser show them its answers (CORS).

origins = Origins.of(["https://chat.example", "app://obsidian.md", "vscode-webview://*"])
origins.allow("https://chat.example")  ->  True
origins.headers("https://chat.example")["Access-Control-Allow-Origin"]  ->  "https://chat.example"

A browser asks first (a preflight) for anything but the simplest requests, and it sends no key with that question.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgellm.errors import UsageError

ANY = "*"
# What a browser sends for a sandboxed frame, and for a file that it shows.
OPAQUE = "null"
# A proxy adds these: then others than the user of this machine may have sent the request.
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
METHODS = "GET, HEAD, POST, DELETE, OPTIONS"
HEADERS = "Authorization, Content-Type, X-Api-Key"
# Headers of answers that a page may read, besides the few that every page may.
EXPOSED = "Retry-After"
# How long a browser may keep the answer to its question; no browser keeps it longer than a day.
REMEMBERED_SECONDS = 86400

_FORM = re.compile(r"([a-z][a-z0-9+.-]*)://([^/\s?#@\\]*)/?", re.IGNORECASE)
_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Origins:
    """The origins that are allowed, as people gave them and as a browser sends them."""

    patterns: frozenset[str] = frozenset()

    @classmethod
    def of(cls, given: Iterable[str]) -> Origins:
        """Read origins such as `https://chat.example`, `file://` or `app://*`; one text may hold several, with commas.

        Raises:
            UsageError: a text is no origin.
        """
        return cls(frozenset(_normal(each) for text in given for each in re.split(r"[,\s]+", text) if each))

    def allow(self, origin: str) -> bool:
        """Whether pages of an origin may use the server."""
        origin = _normal_form(origin) or origin
        return any(_matches(pattern, origin) for pattern in self.patterns)

    def headers(self, origin: str | None) -> dict[str, str]:
        """The headers of every answer to a page of this origin, errors and streams included."""
        if not self.patterns:
            return {}
        if not origin or not self.allow(origin):
            return {"Vary": "Origin"}
        allowed = ANY if ANY in self.patterns else origin
        return {"Vary": "Origin", "Access-Control-Allow-Origin": allowed, "Access-Control-Expose-Headers": EXPOSED}

    def preflight(self, asked: Mapping[str, str]) -> dict[str, str]:
        """The further headers that answer a browser's question; `asked` are its headers, with names in lower case."""
        # A page in the web that asks for a machine at home says so, and must hear that it may.
        is_private = asked.get("access-control-request-private-network") == "true"
        return {
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": asked.get("access-control-request-headers") or HEADERS,
            "Access-Control-Max-Age": str(REMEMBERED_SECONDS),
            **({"Access-Control-Allow-Private-Network": "true"} if is_private else {}),
        }


def is_preflight(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a request is a browser's question before the real one."""
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def is_forwarded(headers: Mapping[str, str]) -> bool:
    """Whether a request came through a proxy; names of headers are in lower case."""
    return any(name in headers for name in FORWARDED)


def is_own_page(headers: Mapping[str, str]) -> bool:
    """Whether a request comes from the server's own page, or from a program that is no browser."""
    origin = headers.get("origin")
    is_own = origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower()
    return is_own and headers.get("sec-fetch-site", "none") in ("same-origin", "none")


def _normal(text: str) -> str:
    if text in (ANY, OPAQUE):
        return text
    normal = _normal_form(text)
    if normal is None:
        why = "an origin is SCHEME://HOST[:PORT], without a path"
        hint = "--allowed-origin https://chat.example, app://obsidian.md, 'vscode-webview://*' or '*'"
        raise UsageError(f"--allowed-origin {text!r:.80} is no origin", why=why, hint=hint)
    return normal


def _normal_form(text: str) -> str | None:
    """An origin as browsers send it: in lower case, without the scheme's own port or a final slash."""
    found = _FORM.fullmatch(text)
    if found is None:
        return None
    scheme, host = found[1].lower(), found[2].lower()
    if scheme in _PORTS and not host:
        return None
    return f"{scheme}://{host.removesuffix(_PORTS.get(scheme, '?'))}"


def _matches(pattern: str, origin: str) -> bool:
    """`*` alone is every origin; inside an origin it stands for any part of host or port."""
    return pattern == ANY or re.fullmatch(re.escape(pattern).replace(r"\*", "[^/]*"), origin) is not None
