"""What an MCP server returns, as a tool's result: text for the model, and where it comes from.

tool_result(CallToolResult(content=[TextContent(text="12:30")]))  ->  ToolResult("12:30")
"""

from __future__ import annotations

import json

from mcp.types import AudioContent, CallToolResult, EmbeddedResource, ImageContent, ResourceLink, TextContent

from edgellm.run.events import ToolSource
from edgellm.tools.tool import ToolResult

# More than any context of a small model holds; the loop chooses from it.
MOST_CHARACTERS = 400_000
MOST_SOURCES = 20


def tool_result(result: CallToolResult) -> ToolResult:
    """A call's result; pictures and sound are named, because the models here read text only."""
    texts: list[str] = []
    sources: list[ToolSource] = []
    for part in result.content:
        match part:
            case TextContent():
                texts.append(part.text)
            case ImageContent() | AudioContent():
                texts.append(f"[{part.mime_type[:60]}, {len(part.data) * 3 // 4:,} bytes, not readable here]")
            case ResourceLink():
                texts.append(f"{part.title or part.name}: {part.uri}")
                sources.append(ToolSource((part.title or part.name)[:200], str(part.uri)[:2000]))
            case EmbeddedResource():
                place = str(part.resource.uri)[:2000]
                texts.append(getattr(part.resource, "text", f"[{place}, not text]"))
                sources.append(ToolSource(place.rsplit("/", 1)[-1] or place, place))
    if not texts and result.structured_content is not None:
        texts.append(json.dumps(result.structured_content, ensure_ascii=False))
    text = "\n".join(texts)
    if len(text) > MOST_CHARACTERS:
        text = f"{text[:MOST_CHARACTERS]}\n[cut off: {len(text):,} characters]"
    return ToolResult(text, tuple(sources[:MOST_SOURCES]), result.is_error)
