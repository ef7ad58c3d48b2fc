"""The tool `web_search`: a SearXNG server of the user's choice, or public search engines through `ddgs`.

web_search("http://localhost:8888").call({"query": "height of the Eiffel tower"})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.run.events import ToolSource
from edgellm.tools.tool import Risk, Tool, ToolResult
from edgellm.tools.web.search import search_ddgs, search_searxng

MOST_RESULTS = 5
PARAMETERS = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "minLength": 1, "maxLength": 200, "description": "a few words to search for"}
    },
    "required": ["query"],
    "additionalProperties": False,
}
EXAMPLES = tuple(
    (question, {"query": query})
    for question, query in (
        ("What is the latest version of Python?", "latest Python version"),
        ("Who won the football match yesterday?", "football match result yesterday"),
        ("What does a ticket for the Louvre cost?", "Louvre ticket price"),
        ("Search the web for news about electric cars.", "electric cars news"),
    )
)
SIGNS = r"(?i:\bsearch (?:the )?(?:web|internet)\b|\blook up online\b|\bgoogle\b|\blatest news\b)|网上|搜索"


def web_search(server: str = "") -> Tool:
    """The tool; `server` is the URL of a SearXNG server, empty for public search engines."""

    def call(arguments: Mapping[str, Any]) -> ToolResult:
        query = str(arguments["query"])
        found = search_searxng(server, query, MOST_RESULTS) if server else search_ddgs(query, MOST_RESULTS)
        if not found:
            return ToolResult(f"The search for {query!r} found nothing.", error=True)
        text = "\n".join(f"[{n}] {each.title or each.url}: {each.text}".rstrip(": ") for n, each in enumerate(found, 1))
        return ToolResult(text, tuple(ToolSource(each.title or each.url, each.url) for each in found))

    description = "Searches the web. Use it for news, prices, people and whatever may have changed lately."
    return Tool("web_search", description, PARAMETERS, Risk.NETWORK, call, examples=EXAMPLES, signs=SIGNS)
