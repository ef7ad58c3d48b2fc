"""Requests of Anthropic's Messages API.

request = parsed(MessageRequest, body)
request.for_engine()    # the same as a chat
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from edgellm.serve.tools.wanted import WEB_SEARCH, FirstCall, Label, WantedServer, WantedTools
from edgellm.tools.mcp.servers import tool_name
from edgellm.tools.tool import OWN
from edgellm.wire.body import AnswerPart, Body, MessageBody
from edgellm.wire.fields import LABELS, MAX_INT, Count, Effort, Name, Schema, Stops, Text, joined, only_text
from edgellm.wire.openai_requests import TOOL_LABELS
from edgellm.wire.sampling import StreamedRequest
from edgellm.wire.tool_choice import FunctionName, NamedTool, ProviderTool, chosen


class TextBlock(AnswerPart):
    """A text."""

    type: Literal["text"]
    text: Text


class ThinkingBlock(AnswerPart):
    """Thoughts of an earlier answer; the signature is not looked at."""

    type: Literal["thinking"]
    thinking: Text


class RedactedThinkingBlock(AnswerPart):
    """Thoughts that only their provider can read: they are left out."""

    type: Literal["redacted_thinking"]


class ToolUseBlock(AnswerPart):
    """A call that the model made."""

    type: Literal["tool_use"]
    id: Name
    name: Name
    input: dict[str, Any]


class ToolReferenceBlock(AnswerPart):
    """A tool that the client's search found; the model has been shown it from the start."""

    type: Literal["tool_reference"]
    tool_name: Name


ResultBlock = Annotated[TextBlock | ToolReferenceBlock, Discriminator("type"), only_text]


class ToolResultBlock(Body):
    """What a call gave."""

    ignored = ("cache_control", "index", "name", "status")
    type: Literal["tool_result"]
    tool_use_id: Name
    content: Text | list[ResultBlock] | None = None
    is_error: bool | None = None


class ServerUseBlock(AnswerPart):
    """A call that this server made for an earlier answer."""

    type: Literal["server_tool_use", "mcp_tool_use"]
    id: Name
    name: Name
    input: dict[str, Any]
    server_name: Label | None = None


class SearchedPage(AnswerPart):
    """A page that a search found; what the model read of all of them stands in the first one."""

    type: Literal["web_search_result"]
    encrypted_content: Text = ""


class ServerResultBlock(AnswerPart):
    """What such a call gave; an error is an object."""

    type: Literal["web_search_tool_result", "mcp_tool_result"]
    tool_use_id: Name
    content: Text | list[SearchedPage | TextBlock] | dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """What the model read."""
        if isinstance(self.content, str):
            return self.content
        if isinstance(self.content, list):
            return joined(each.text if isinstance(each, TextBlock) else each.encrypted_content for each in self.content)
        return "error: the call failed"


ContentBlock = Annotated[
    TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock | ServerUseBlock
    | ServerResultBlock,
    Discriminator("type"), only_text,
]  # fmt: skip


class AnthropicMessage(MessageBody):
    """A message."""

    role: Literal["user", "assistant", "system"]
    content: Text | list[ContentBlock]


class AnthropicTool(Body):
    """A function that the model may call. All are shown to it from the start, those that may be deferred too."""

    ignored = TOOL_LABELS
    type: Literal["custom"] | None = None
    name: Name
    description: str | None = None
    input_schema: Schema
    strict: bool | None = None


class AnthropicSearch(Body):
    """A search in the web, by the engine that this server was started with."""

    type: Annotated[str, Field(pattern=r"^web_search_\d{8}$")]
    name: Literal["web_search"]
    max_uses: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    allowed_domains: list[str] | None = None
    blocked_domains: list[str] | None = None

    @classmethod
    def ignores(cls, name: str, body: Mapping[str, Any]) -> bool:
        """Settings of Anthropic's search, which the engine here does not have."""
        return True


class ToolSwitch(Body):
    """Whether a tool is offered."""

    ignored = ("defer_loading",)
    enabled: bool | None = None


class McpToolset(Body):
    """Which tools of an MCP server are offered."""

    ignored = ("cache_control",)
    type: Literal["mcp_toolset"]
    mcp_server_name: Label
    default_config: ToolSwitch | None = None
    configs: dict[str, ToolSwitch] | None = None

    def chosen(self, allowed: frozenset[str] | None) -> frozenset[str] | None:
        """The tools that are offered, None for all."""
        if self.default_config is None or self.default_config.enabled is not False:
            return allowed
        return frozenset(name for name, each in (self.configs or {}).items() if each.enabled is not False)


class ToolConfiguration(Body):
    """The same in an earlier form."""

    enabled: bool | None = None
    allowed_tools: list[Name] | None = None


class McpServerEntry(Body):
    """An MCP server: one of this server's own by its name, or one at an address."""

    type: Literal["url"]
    name: Label
    url: Annotated[str, Field(max_length=2000)]
    authorization_token: Annotated[str, Field(max_length=8000)] | None = None
    tool_configuration: ToolConfiguration | None = None

    def wanted(self, sets: Iterable[McpToolset]) -> WantedServer:
        """It in no protocol's words."""
        about = self.tool_configuration or ToolConfiguration()
        allowed = None if about.allowed_tools is None else frozenset(about.allowed_tools)
        allowed = frozenset() if about.enabled is False else allowed
        for each in sets:
            allowed = each.chosen(allowed) if each.mcp_server_name == self.name else allowed
        headers = {"Authorization": f"Bearer {self.authorization_token}"} if self.authorization_token else {}
        return WantedServer(self.name, self.url, headers, allowed, is_listed=True)


def _tool_type(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    if isinstance(kind, str) and kind.startswith("web_search_"):
        return "web_search"
    return "custom" if kind in (None, "custom") else "mcp_toolset" if kind == "mcp_toolset" else "other"


MessageTool = Annotated[
    Annotated[AnthropicTool, Tag("custom")]
    | Annotated[AnthropicSearch, Tag("web_search")]
    | Annotated[McpToolset, Tag("mcp_toolset")]
    | Annotated[ProviderTool, Tag("other")],
    Discriminator(_tool_type),
]


class ToolMode(Body):
    """Whether tools may, must or cannot be called."""

    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool | None = None


class ChosenTool(Body):
    """The tool that must be called."""

    type: Literal["tool"]
    name: Name
    disable_parallel_tool_use: bool | None = None


class Thinking(Body):
    """Whether thoughts are shown: as they are, or not at all."""

    ignored = ("block_binding",)
    display: Literal["summarized", "omitted"] | None = None


class ThinkingOn(Thinking):
    """Think, for at most `budget_tokens`; models that cannot think ignore it."""

    type: Literal["enabled"]
    budget_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)]


class ThinkingOther(Thinking):
    """Do not think, or as the model does by itself."""

    type: Literal["disabled", "adaptive"]


class OutputFormat(Body):
    """The form of the answer."""

    type: Literal["json_schema"]
    schema_: Annotated[Schema, Field(alias="schema")]


class OutputConfig(Body):
    """About the answer."""

    effort: Effort | None = None
    format: OutputFormat | None = None


class MessagePrompt(StreamedRequest):
    """What a message and the count of its tokens have in common."""

    ignored = (*LABELS, "anthropic_beta", "anthropic_version", "betas", "billing_policy", "cache_control")
    model: Name
    messages: Annotated[list[AnthropicMessage], Field(min_length=1)]
    system: Text | list[TextBlock] | None = None
    tools: list[MessageTool] | None = None
    mcp_servers: Annotated[list[McpServerEntry], Field(max_length=20)] | None = None
    tool_choice: ToolMode | ChosenTool | None = None
    thinking: Annotated[ThinkingOn | ThinkingOther, Discriminator("type")] | None = None
    output_config: OutputConfig | None = None
    # As `output_config.format`, by its name in the beta.
    output_format: OutputFormat | None = None
    # Nothing is ever edited out of a conversation, and the answer says so.
    context_management: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    max_tokens: Count | None = None
    stop_sequences: Stops | None = None
    # Accepted and ignored: it does not change the answer.
    metadata: dict[str, Any] | None = None

    @property
    def server_tools(self) -> WantedTools:
        """The tools of the server that the model may call; none where `tool_choice` rules them out."""
        choice, tools = self.tool_choice, self.tools or ()
        own = {tool.name for tool in tools if isinstance(tool, AnthropicTool)}
        if choice is not None and (choice.type == "none" or (isinstance(choice, ChosenTool) and choice.name in own)):
            return WantedTools()
        sets = [tool for tool in tools if isinstance(tool, McpToolset)]
        searches = [tool for tool in tools if isinstance(tool, AnthropicSearch)]
        first = FirstCall(choice.name) if isinstance(choice, ChosenTool) else None
        return WantedTools(
            usual=(WEB_SEARCH,) if searches else (),
            servers=tuple(each.wanted(sets) for each in self.mcp_servers or ()),
            first=FirstCall() if choice is not None and choice.type == "any" else first,
            most_calls=min((each.max_uses for each in searches if each.max_uses), default=None),
        )

    def prompt(self, *, has_server_tools: bool = False) -> dict[str, Any]:
        """The part of a chat's body that makes up its prompt; with tools of the server the choice is made elsewhere."""
        messages = [] if self.system is None else [{"role": "system", "content": _text(self.system)}]
        for message in self.messages:
            messages.extend(_messages(message))
        body = {"messages": messages, **self._tools(has_server_tools), **self.given_only("chat_template_kwargs")}
        if isinstance(self.thinking, ThinkingOn):
            body["thinking_budget_tokens"] = self.thinking.budget_tokens
            body["chat_template_kwargs"] = {"enable_thinking": True, **body.get("chat_template_kwargs", {})}
        elif self.thinking is not None and self.thinking.type == "disabled":
            body["reasoning_effort"] = "none"
        config = self.output_config or OutputConfig()
        if config.effort is not None:
            body.setdefault("reasoning_effort", config.effort)
        if (form := config.format or self.output_format) is not None:
            json_schema = {"name": "answer", "schema": form.schema_}
            body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        return body

    def _tools(self, has_server_tools: bool) -> dict[str, Any]:
        tools = [
            {
                "type": "function",
                "function": {"parameters": tool.input_schema, **tool.given_only("name", "description")},
            }
            for tool in self.tools or ()
            if isinstance(tool, AnthropicTool)
        ]
        choice = self.tool_choice
        if choice is None or has_server_tools:
            return chosen(tools, None)
        alone = {"parallel_tool_calls": False} if choice.disable_parallel_tool_use else {}
        if isinstance(choice, ChosenTool):
            return {**chosen(tools, NamedTool(type="function", function=FunctionName(name=choice.name))), **alone}
        return {**chosen(tools, "required" if choice.type == "any" else choice.type), **alone}


class CountRequest(MessagePrompt):
    """POST /v1/messages/count_tokens."""


class MessageRequest(MessagePrompt):
    """POST /v1/messages."""

    max_tokens: Count

    @property
    def shows_thoughts(self) -> bool:
        """Whether the answer has the text of its thoughts."""
        return self.thinking is None or self.thinking.display != "omitted"

    def for_engine(self, *, has_server_tools: bool = False) -> dict[str, Any]:
        """The same request as a chat; llama-server returns the stop sequence that it met."""
        body = self.sampling(*(set(MessageRequest.model_fields) - set(StreamedRequest.model_fields)), "stream")
        body |= {**self.prompt(has_server_tools=has_server_tools), "max_tokens": self.max_tokens}
        if self.stop_sequences:
            details = {"verbose": True, "response_fields": ["stopping_word"]}
            body |= {"stop": [*self.stops, *self.stop_sequences], **details}
        return body


def _text(content: str | Sequence[TextBlock | ToolReferenceBlock] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return joined(block.text if isinstance(block, TextBlock) else block.tool_name for block in content)


def _name_here(block: ToolUseBlock | ServerUseBlock) -> str:
    """The name of a called tool in the prompt."""
    label = block.server_name if isinstance(block, ServerUseBlock) else None
    return block.name if label in (None, OWN) else tool_name(label, block.name, ())


def _messages(message: AnthropicMessage) -> list[dict[str, Any]]:
    """A message as chat has it: results of tools are messages of their own, before what the user says besides."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    results: list[dict[str, Any]] = []
    texts: list[str] = []
    whole: dict[str, Any] = {"role": message.role, "content": ""}
    for block in message.content:
        if isinstance(block, TextBlock):
            texts.append(block.text)
        elif isinstance(block, ThinkingBlock):
            whole["reasoning_content"] = whole.get("reasoning_content", "") + block.thinking
        elif isinstance(block, ServerResultBlock):  # the answer goes on after it
            whole["content"] = joined(texts)
            results += [whole, {"role": "tool", "tool_call_id": block.tool_use_id, "content": block.text}]
            texts, whole = [], {"role": message.role, "content": ""}
        elif isinstance(block, ToolUseBlock | ServerUseBlock):
            function = {"name": _name_here(block), "arguments": json.dumps(block.input, ensure_ascii=False)}
            whole.setdefault("tool_calls", []).append({"id": block.id, "type": "function", "function": function})
        elif isinstance(block, ToolResultBlock):
            said = ("error: " if block.is_error else "") + _text(block.content)
            results.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": said})
    whole["content"] = joined(texts)
    return [*results, *([whole] if len(whole) > 2 or whole["content"] or not results else [])]
