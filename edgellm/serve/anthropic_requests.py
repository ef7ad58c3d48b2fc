"""Requests of Anthropic's Messages API.

request = parsed(MessageRequest, body)
request.for_worker()    # the same as a chat
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, field_validator

from edgellm.serve.openai_requests import Text
from edgellm.serve.requests import Body, Name, Stops, Streamed
from edgellm.serve.tool_choice import FunctionName, NamedTool, chosen


class CacheControl(Body):
    """Where a cache may end: of no effect on the answer, and the worker caches every prompt."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Cached(Body):
    """What a client may mark for the cache."""

    cache_control: CacheControl | None = None


class TextBlock(Cached):
    """A text."""

    type: Literal["text"]
    text: Text
    citations: list[Any] | None = Field(default=None, max_length=0)


class ThinkingBlock(Cached):
    """Thoughts of an earlier answer; the signature is not looked at."""

    type: Literal["thinking"]
    thinking: Text
    signature: str | None = None


class ToolUseBlock(Cached):
    """A call that the model made."""

    type: Literal["tool_use"]
    id: Name
    name: Name
    input: dict[str, Any]


class ToolResultBlock(Cached):
    """What a call gave."""

    type: Literal["tool_result"]
    tool_use_id: Name
    content: Text | list[TextBlock] | None = None
    is_error: bool | None = None


Block = Annotated[TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock, Discriminator("type")]


class Message(Body):
    """A message."""

    role: Literal["user", "assistant", "system"]
    content: Text | list[Block]


class Tool(Cached):
    """A function that the model may call."""

    type: Literal["custom"] | None = None
    name: Name
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None


class ToolChoice(Body):
    """Whether tools may, must or cannot be called."""

    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool | None = None


class ChosenTool(Body):
    """The tool that must be called."""

    type: Literal["tool"]
    name: Name
    disable_parallel_tool_use: bool | None = None


class ThinkingOn(Body):
    """Think, for so many tokens at most; models that cannot think do not."""

    type: Literal["enabled"]
    budget_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)]


class ThinkingOther(Body):
    """Do not think, or as the model does by itself."""

    type: Literal["disabled", "adaptive"]


class OutputFormat(Body):
    """The form of the answer."""

    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Body):
    """About the answer."""

    effort: Literal["low", "medium", "high"] | None = None
    format: OutputFormat | None = None


class MessageMetadata(Body):
    """Who asks: of no consequence here."""

    user_id: str | None = None


class Prompt(Streamed):
    """What a message and the count of its tokens have in common."""

    model: Name
    messages: Annotated[list[Message], Field(min_length=1)]
    system: Text | list[TextBlock] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | ChosenTool | None = None
    thinking: Annotated[ThinkingOn | ThinkingOther, Discriminator("type")] | None = None
    output_config: OutputConfig | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    cache_control: CacheControl | None = None

    @field_validator("messages", mode="before")
    @classmethod
    def _only_text(cls, value: Any) -> Any:
        for message in value if isinstance(value, list) else ():
            content = message.get("content") if isinstance(message, dict) else None
            for block in content if isinstance(content, list) else ():
                if isinstance(block, dict) and block.get("type") in ("image", "document"):
                    raise ValueError(f"{block['type']} cannot be read: the models here read text only")
        return value

    def prompt(self) -> dict[str, Any]:
        """The part of a chat's body that makes up its prompt."""
        messages = [] if self.system is None else [{"role": "system", "content": _text(self.system)}]
        for message in self.messages:
            messages.extend(_messages(message))
        body = {"messages": messages, **self._tools(), **self.given_only("chat_template_kwargs")}
        if isinstance(self.thinking, ThinkingOn):
            body["thinking_budget_tokens"] = self.thinking.budget_tokens
            body["chat_template_kwargs"] = {"enable_thinking": True, **body.get("chat_template_kwargs", {})}
        elif self.thinking is not None and self.thinking.type == "disabled":
            body["reasoning_effort"] = "none"
        config = self.output_config
        if config is not None and config.effort is not None:
            body.setdefault("reasoning_effort", config.effort)
        if config is not None and config.format is not None:
            json_schema = {"name": "answer", "schema": config.format.schema_}
            body["response_format"] = {"type": "json_schema", "json_schema": json_schema}
        return body

    def _tools(self) -> dict[str, Any]:
        tools = [
            {
                "type": "function",
                "function": {"parameters": tool.input_schema, **tool.given_only("name", "description")},
            }
            for tool in self.tools or ()
        ]
        choice = self.tool_choice
        if choice is None:
            return chosen(tools, None)
        alone = {"parallel_tool_calls": False} if choice.disable_parallel_tool_use else {}
        if isinstance(choice, ChosenTool):
            return {**chosen(tools, NamedTool(type="function", function=FunctionName(name=choice.name))), **alone}
        return {**chosen(tools, "required" if choice.type == "any" else choice.type), **alone}


class CountRequest(Prompt):
    """POST /v1/messages/count_tokens."""


class MessageRequest(Prompt):
    """POST /v1/messages."""

    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)]
    stop_sequences: Stops | None = None
    metadata: MessageMetadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None

    def for_worker(self) -> dict[str, Any]:
        """The body of the chat that this is; the worker tells which of the stop sequences it met."""
        body = self.sampling(*(set(MessageRequest.model_fields) - set(Streamed.model_fields)), "stream")
        body |= {**self.prompt(), "max_tokens": self.max_tokens}
        if self.stop_sequences:
            others = [self.stop] if isinstance(self.stop, str) else self.stop or []
            told = {"verbose": True, "response_fields": ["stopping_word"]}
            body |= {"stop": [*others, *self.stop_sequences], **told}
        return body


def _text(content: str | list[TextBlock] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(block.text for block in content)


def _messages(message: Message) -> list[dict[str, Any]]:
    """A message as chat has it: results of tools are messages of their own, before what the user says besides."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    results: list[dict[str, Any]] = []
    whole: dict[str, Any] = {"role": message.role, "content": ""}
    for block in message.content:
        if isinstance(block, TextBlock):
            whole["content"] += block.text
        elif isinstance(block, ThinkingBlock):
            whole["reasoning_content"] = whole.get("reasoning_content", "") + block.thinking
        elif isinstance(block, ToolUseBlock):
            function = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
            whole.setdefault("tool_calls", []).append({"id": block.id, "type": "function", "function": function})
        else:
            said = ("error: " if block.is_error else "") + _text(block.content)
            results.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": said})
    return [*results, *([whole] if len(whole) > 2 or whole["content"] or not results else [])]
