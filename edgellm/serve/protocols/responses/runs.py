"""How OpenAI's Responses API writes what the server ran itself: searches in the web, calls and tools of MCP servers.

runs = RunWords(request, tools)
for kind, fields in runs.events(change): ...     # without their numbers
runs.item(block)                                 # the finished item

Built-in tools other than the search appear as those of an MCP server with the label `edgellm`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from edgellm.serve.answer.ran import is_address
from edgellm.serve.answer.whole import Block, Change, Step
from edgellm.serve.protocols.responses.requests import ResponseRequest
from edgellm.serve.protocols.responses.tools import McpTool, WebSearchTool
from edgellm.serve.tools.served import AskedTools, ToolList
from edgellm.serve.tools.wanted import WEB_SEARCH
from edgellm.tools.tool import OWN
from edgellm.wire.body import Body

Events = Iterator[tuple[str, dict[str, Any]]]
# How ids of questions to the client begin.
APPROVAL = "mcpr_"


class RunWords:
    """What the server ran for one response; `suffix` makes its ids its own."""

    def __init__(self, asked: ResponseRequest, tools: AskedTools | None) -> None:
        self.suffix = ""
        self._asked, self._tools = asked, tools
        self._is_search = any(isinstance(tool, WebSearchTool) for tool in asked.tools or ())

    def lists(self) -> list[dict[str, Any]]:
        """The items that show the tools of MCP servers, which come first."""
        return [self._list(number, each) for number, each in enumerate(self._tools.lists if self._tools else ())]

    def list_events(self, item: dict[str, Any]) -> Events:
        """The events of such an item."""
        about = {"item_id": item["id"]}
        yield "response.output_item.added", {"item": {**item, "tools": [], "error": None}}
        yield "response.mcp_list_tools.in_progress", about
        yield f"response.mcp_list_tools.{'failed' if item['error'] else 'completed'}", about
        yield "response.output_item.done", {"item": item}

    def events(self, change: Change) -> Events:
        """A call begins, has its arguments, or is over; one that the client is asked about only ends."""
        block, step = change.block, change.step
        about = {"item_id": self._id(block)}
        if self._is_question(block):
            item = self.item(block)
            if step is Step.CLOSE:
                yield "response.output_item.added", {"item": item}
                yield "response.output_item.done", {"item": item}
            return
        is_web = self._is_web(block)
        kind = "response.web_search_call" if is_web else "response.mcp_call"
        if step is Step.OPEN:
            yield "response.output_item.added", {"item": self.item(block)}
            yield f"{kind}.in_progress", about
        elif step is Step.MORE and is_web:
            yield f"{kind}.searching", about
        elif step is Step.MORE:
            yield "response.mcp_call_arguments.delta", {**about, "delta": change.piece}
            yield "response.mcp_call_arguments.done", {**about, "arguments": block.text}
        else:
            has_failed = not is_web and block.returned is not None and block.returned.error
            yield f"{kind}.{'failed' if has_failed else 'completed'}", about
            yield "response.output_item.done", {"item": self.item(block)}

    def item(self, block: Block) -> dict[str, Any]:
        """A call as an item."""
        origin = self._tools.origin(block.name) if self._tools else None
        label, name = (origin.label, origin.name) if origin else (OWN, block.name)
        called = {"arguments": block.text, "name": name, "server_label": label}
        if self._is_question(block):
            return {"id": self._id(block), "type": "mcp_approval_request", **called}
        if self._is_web(block):
            return {
                "id": self._id(block), "type": "web_search_call", "status": self._status(block),
                "action": self._action(block),
            }  # fmt: skip
        returned = block.returned
        has_failed = returned is not None and returned.error
        return {
            "id": self._id(block), "type": "mcp_call", "status": self._status(block), **called,
            "approval_request_id": block.call_id if block.call_id.startswith(APPROVAL) else None,
            "output": returned.text if returned is not None and not has_failed else None,
            "error": _error(returned.text) if returned is not None and has_failed else None,
        }  # fmt: skip

    def is_left_out(self, tool: Body) -> bool:
        """Whether the server does not have a tool."""
        if isinstance(tool, WebSearchTool):
            return self._tools is None or bool(self._tools.missing)
        return isinstance(tool, McpTool) and self._tools is None

    def repeated(self) -> list[dict[str, Any]]:
        """The tools of the request that are used, without what is secret in them."""
        return [
            tool.given("headers", "authorization")
            for tool in self._asked.tools or ()
            if isinstance(tool, McpTool | WebSearchTool) and not self.is_left_out(tool)
        ]

    def _is_web(self, block: Block) -> bool:
        return self._is_search and block.name == WEB_SEARCH

    def _is_question(self, block: Block) -> bool:
        """Whether the client is asked about a call, instead of its being made."""
        return (
            self._tools is not None
            and not block.call_id.startswith(APPROVAL)
            and block.returned is None
            and self._tools.needs_approval(block.name)
        )

    def _id(self, block: Block) -> str:
        kind = "ws_" if self._is_web(block) else APPROVAL if self._is_question(block) else "mcp_"
        return f"{kind}{self.suffix}{block.index}"

    @staticmethod
    def _status(block: Block) -> str:
        if block.returned is None:
            return "in_progress"
        return "failed" if block.returned.error else "completed"

    def _action(self, block: Block) -> dict[str, Any]:
        query = _query(block.text)
        pages = [each for each in block.returned.sources if is_address(each)] if block.returned else []
        found = {"sources": [{"type": "url", "url": each.place} for each in pages]} if self._asked.wants_pages else {}
        return {"type": "search", "query": query, "queries": [query] if query else [], **found}

    def _list(self, number: int, listed: ToolList) -> dict[str, Any]:
        tools = [
            {"name": name, "description": tool.description, "input_schema": dict(tool.parameters), "annotations": None}
            for name, tool in listed.tools
        ]
        about = {"id": f"mcpl_{self.suffix}{number}", "type": "mcp_list_tools", "server_label": listed.label}
        return {**about, "tools": tools, "error": listed.error or None}


def _error(text: str) -> dict[str, Any]:
    return {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": text}]}


def _query(arguments: str) -> str:
    """What is searched for: the argument of that name, or the first text among them."""
    try:
        given = json.loads(arguments or "{}")
    except ValueError:
        return ""
    if not isinstance(given, dict):
        return ""
    texts = [value for value in given.values() if isinstance(value, str)]
    return str(given.get("query") or next(iter(texts), ""))
