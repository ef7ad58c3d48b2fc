"""The tool `fetch`: one page of the web as readable text, from public addresses only.

fetch().call({"url": "https://example.com/"})
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgellm.run.events import ToolSource
from edgellm.tools.tool import Risk, Tool, ToolResult
from edgellm.tools.web.download import DownloadLimits, download
from edgellm.tools.web.readable import readable

PARAMETERS = {
    "type": "object",
    "properties": {
        "url": {"type": "string", "minLength": 1, "maxLength": 500, "description": "begins with http:// or https://"}
    },
    "required": ["url"],
    "additionalProperties": False,
}
EXAMPLES = (
    ("What does https://example.com/news say?", {"url": "https://example.com/news"}),
    ("Summarise http://example.org/report.html", {"url": "http://example.org/report.html"}),
)
SIGNS = r"https?://\S"


def fetch(*, private: bool = False) -> Tool:
    """The tool; with `private` it may also read pages of this machine and of private networks."""
    limits = DownloadLimits(private=private)

    def call(arguments: Mapping[str, Any]) -> ToolResult:
        page = download(str(arguments["url"]), limits)
        read = readable(page)
        if not read.text.strip():
            return ToolResult(f"{page.url} has no text.", error=True)
        cut = "\n[The page is longer; this is its beginning.]" if page.is_cut else ""
        title = read.title.strip()
        return ToolResult(f"{title}\n{read.text}{cut}".strip(), (ToolSource(title or page.url, page.url),))

    description = "Reads one web page by its address and returns its text."
    return Tool("fetch", description, PARAMETERS, Risk.NETWORK, call, examples=EXAMPLES, signs=SIGNS)
