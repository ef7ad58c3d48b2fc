"""The tools of a request of OpenAI's Responses API, and the choice among them.

parse(ResponseRequest, b'{"tools": [{"type": "mcp", "server_label": "files"}], ...}').tools
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from edgellm.serve.tools.wanted import Label, WantedServer
from edgellm.wire.body import Body
from edgellm.wire.fields import Name, Schema
from edgellm.wire.openai_requests import TOOL_LABELS
from edgellm.wire.tool_choice import ProviderTool

FILE_SEARCH = "file_search"


class FunctionTool(Body):
    """A function that the model may call."""

    ignored = TOOL_LABELS
    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class RankingOptions(Body):
    """How results are ranked; there is one way."""

    ranker: Literal["auto", "default-2024-11-15"] | None = None
    score_threshold: Annotated[float, Field(ge=0, le=0)] | None = None


class FileSearchTool(Body):
    """A search in documents. The server makes it for every question: small models do not know when to."""

    type: Literal["file_search"]
    vector_store_ids: Annotated[list[Name], Field(min_length=1, max_length=1)]
    max_num_results: Annotated[int, Field(ge=1, le=50)] | None = None
    ranking_options: RankingOptions | None = None


class WebSearchTool(Body):
    """A search in the web, by the engine that this server was started with."""

    type: Annotated[str, Field(pattern=r"^web_search(_preview)?(_20\d\d_\d\d_\d\d)?$")]
    filters: dict[str, Any] | None = None

    @classmethod
    def ignores(cls, name: str, body: Mapping[str, Any]) -> bool:
        """Settings of OpenAI's search, which the engine here does not have."""
        return True


class ToolNames(Body):
    """Tools of an MCP server, by the names that it gives them. What a server says of them itself counts for nothing."""

    tool_names: Annotated[list[Name], Field(max_length=500)]


class ApprovalFilter(Body):
    """Which calls the client wants to be asked about."""

    always: ToolNames | None = None
    never: ToolNames | None = None


class McpTool(Body):
    """The tools of an MCP server: one of this server's own by its label, or one at an address."""

    type: Literal["mcp"]
    server_label: Label
    server_url: Annotated[str, Field(max_length=2000)] | None = None
    headers: Annotated[dict[str, Annotated[str, Field(max_length=8000)]], Field(max_length=50)] | None = None
    authorization: Annotated[str, Field(max_length=8000)] | None = None
    allowed_tools: Annotated[list[Name], Field(max_length=500)] | ToolNames | None = None
    require_approval: Literal["always", "never"] | ApprovalFilter | None = None

    @classmethod
    def ignores(cls, name: str, body: Mapping[str, Any]) -> bool:
        """Remarks about the server, and connectors of OpenAI's, whose label is not known here."""
        return True

    def wanted(self, listed: Collection[str]) -> WantedServer:
        """It in no protocol's words; the client knows the tools of servers that are `listed`."""
        headers = dict(self.headers or {})
        if self.authorization is not None:
            headers["Authorization"] = f"Bearer {self.authorization}"
        allowed = self.allowed_tools.tool_names if isinstance(self.allowed_tools, ToolNames) else self.allowed_tools
        return WantedServer(
            self.server_label, self.server_url or "", headers, None if allowed is None else frozenset(allowed),
            self._needs_approval, self.server_label in listed,
        )  # fmt: skip

    def _needs_approval(self, name: str) -> bool:
        """As OpenAI has it, a client that says nothing wants to be asked."""
        rule = self.require_approval
        if not isinstance(rule, ApprovalFilter):
            return rule != "never"
        if rule.never is not None and name in rule.never.tool_names:
            return False
        return rule.always is None or name in rule.always.tool_names


def type_of(value: Any) -> str:
    """The field `type` of a part of a request, empty without one."""
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return str(kind or "")


def _tool_type(value: Any) -> str:
    kind = type_of(value)
    if kind.startswith("web_search"):
        return "web_search"
    return kind if kind in ("function", FILE_SEARCH, "mcp") else "other"


ResponseTool = Annotated[
    Annotated[FunctionTool, Tag("function")]
    | Annotated[FileSearchTool, Tag("file_search")]
    | Annotated[WebSearchTool, Tag("web_search")]
    | Annotated[McpTool, Tag("mcp")]
    | Annotated[ProviderTool, Tag("other")],
    Discriminator(_tool_type),
]


class ChosenFunction(Body):
    """The function that must be called."""

    type: Literal["function"]
    name: Name


class ChosenSearch(Body):
    """The search must be made, as it always is in documents."""

    type: Literal["file_search", "web_search", "web_search_preview", "web_search_preview_2025_03_11"]


class ChosenServer(Body):
    """A tool of an MCP server must be called: the one of that name, or any."""

    type: Literal["mcp"]
    server_label: Label
    name: Name | None = None


class AllowedFunctions(Body):
    """Those that may be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[ChosenFunction]
