"""Searches of the web: a SearXNG server by its URL, or `ddgs`, which asks public search engines.

search_searxng("http://localhost:8888", "bridges", 5)  ->  [FoundPage("Bridges", "https://...", "The bridge ...")]
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from edgellm.errors import NetworkError, UsageError
from edgellm.tools.web.download import DownloadLimits, download

LIMITS = DownloadLimits(size=2 << 20, seconds=20.0, redirects=3, private=True)
MOST_TEXT = 500
INSTALL = "pip install 'edgellm[tools]'"


@dataclass(frozen=True, slots=True)
class FoundPage:
    """A page that a search found; `text` is its beginning, or where the words stand."""

    title: str
    url: str
    text: str


def search_searxng(server: str, query: str, most: int) -> list[FoundPage]:
    """Ask a SearXNG server, which the user named: it may be on this machine.

    Raises:
        NetworkError: it cannot be reached, or its answer is not that of SearXNG.
    """
    page = download(f"{server.rstrip('/')}/search?{urlencode({'q': query, 'format': 'json'})}", LIMITS)
    try:
        found = json.loads(page.body)
        results = [_found(each, "url", "content") for each in found["results"] if isinstance(each, dict)]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        hint = "its settings.yml needs json under search: formats:"
        raise NetworkError(f"{server} does not answer like SearXNG", why=type(error).__name__, hint=hint) from error
    return [each for each in results if each.url.startswith(("http://", "https://"))][:most]


def search_ddgs(query: str, most: int) -> list[FoundPage]:
    """Ask public search engines.

    Raises:
        UsageError: the extra is not installed.
        NetworkError: they cannot be reached, or refuse.
    """
    try:
        from ddgs import DDGS
    except ImportError as error:
        raise UsageError("web_search needs one more package", why=str(error), hint=INSTALL) from error
    try:
        found = DDGS(timeout=20).text(query, max_results=most)
    except Exception as error:  # it passes on whatever its libraries raise
        raise NetworkError("the search engines do not answer", why=f"{type(error).__name__}: {error}"[:200]) from error
    return [_found(each, "href", "body") for each in found][:most]


def _found(result: dict[str, Any], url: str, text: str) -> FoundPage:
    title, address, content = (str(result.get(name) or "") for name in ("title", url, text))
    return FoundPage(" ".join(title.split())[:200], address[:2000], " ".join(content.split())[:MOST_TEXT])
