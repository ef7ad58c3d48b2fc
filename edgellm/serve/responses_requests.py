"""Requests of OpenAI's Responses API.

request = parsed(ResponseRequest, body)
request.for_worker()    # the same as a chat
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from edgellm.serve.openai_requests import Text
from edgellm.serve.requests import Arguments, Body, Metadata, Name, Streamed
from edgellm.serve.tool_choice import Allowed, AllowedTools, FunctionName, Mode, NamedTool, chosen

Status = Literal["in_progress", "completed", "incomplete"] | None


class Part(Body):
    """A piece of a message: text, as input or from an earlier answer."""

    type: Literal["input_text", "output_text", "text", "refusal"]
    text: Text | None = None
    refusal: Text | None = None
    annotations: list[dict[str, Any]] | None = None
    logprobs: list[dict[str, Any]] | None = None

    @field_validator("type", mode="before")
    @classmethod
    def _only_text(cls, value: Any) -> Any:
        if value in ("input_image", "input_file", "input_audio"):
            raise ValueError(f"{value} cannot be read: the models here read text only")
        return value


Content = Text | list[Part]


class MessageItem(Body):
    """A message."""

    type: Literal["message"] | None = None
    role: Literal["user", "system", "developer", "assistant"]
    content: Content
    id: str | None = None
    status: Status = None
    phase: Literal["commentary", "final_answer"] | None = None


class CallItem(Body):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: str
    name: Name
    arguments: Arguments
    id: str | None = None
    status: Status = None


class CallOutputItem(Body):
    """What a call gave."""

    type: Literal["function_call_output"]
    call_id: str
    output: Content
    id: str | None = None
    status: Status = None


class ReasoningText(Body):
    """Thoughts."""

    type: Literal["reasoning_text"]
    text: Text


class ReasoningItem(Body):
    """What the model thought before an earlier answer."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: list[dict[str, Any]] | None = None
    content: list[ReasoningText] | None = None
    encrypted_content: Literal[""] | None = None
    status: Status = None


def _item_type(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return str(kind or "message")


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[CallOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(_item_type),
]


class FunctionTool(Body):
    """A function that the model may call."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChosenFunction(Body):
    """The function that must be called."""

    type: Literal["function"]
    name: Name


class AllowedFunctions(Body):
    """Those that may be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[ChosenFunction]


class Format(Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Format:
        if self.type == "json_schema" and self.schema_ is None:
            raise ValueError("schema is missing")
        return self

    def for_worker(self) -> dict[str, Any]:
        """As chat has it."""
        if self.type != "json_schema":
            return {"type": self.type}
        return {"type": self.type, "json_schema": {"name": self.name or "answer", "schema": self.schema_ or {}}}


class TextOptions(Body):
    """About the text."""

    format: Format | None = None


class Reasoning(Body):
    """How long to think; templates that know no effort take no notice."""

    effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    summary: Literal["auto"] | None = None


class ResponseStreamOptions(Body):
    """What a stream tells besides."""

    include_obfuscation: Literal[False] | None = None


class ResponseRequest(Streamed):
    """POST /v1/responses."""

    model: Name | None = None
    input: Text | Annotated[list[Item], Field(min_length=1)]
    instructions: Text | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Mode | ChosenFunction | AllowedFunctions | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    stream_options: ResponseStreamOptions | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    store: Literal[False] | None = None
    background: Literal[False] | None = None
    previous_response_id: None = None
    # Of no consequence here, and asked for nothing that could be missed.
    metadata: Metadata | None = None
    max_tool_calls: int | None = None
    user: str | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None

    @field_validator("store", "background", "previous_response_id", mode="before")
    @classmethod
    def _nothing_is_kept(cls, value: Any) -> Any:
        if value:
            raise ValueError("answers are not kept here; send what was said before in input")
        return value

    @property
    def wants_truncation(self) -> bool:
        """Whether a prompt that is too long may be shortened."""
        return bool(self.truncate) or self.truncation == "auto"

    @property
    def wants_logprobs(self) -> bool:
        """Whether tokens are told with their log-probabilities."""
        return "message.output_text.logprobs" in (self.include or ())

    def for_worker(self) -> dict[str, Any]:
        """The body of the chat that this is."""
        body = self.sampling(*(set(ResponseRequest.model_fields) - set(Streamed.model_fields)), "stream")
        body["messages"] = self._messages()
        body |= chosen(self._tools(), self._choice())
        if self.max_output_tokens is not None:
            body["max_tokens"] = self.max_output_tokens
        if self.text is not None and self.text.format is not None:
            body["response_format"] = self.text.format.for_worker()
        if self.reasoning is not None and self.reasoning.effort is not None:
            body["reasoning_effort"] = self.reasoning.effort
        if self.wants_logprobs:
            body |= {"logprobs": True, "top_logprobs": max(1, self.top_logprobs or 0)}
        return {**body, **self.given_only("parallel_tool_calls", "chat_template_kwargs")}

    def _messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        if self.instructions is not None:
            messages.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            return [*messages, {"role": "user", "content": self.input}]
        for item in self.input:
            if isinstance(item, CallOutputItem):
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)})
            elif isinstance(item, MessageItem) and item.role != "assistant":
                role = "system" if item.role == "developer" else item.role
                messages.append({"role": role, "content": _text(item.content)})
            else:
                _add_to_answer(messages, item)
        return messages

    def _tools(self) -> list[dict[str, Any]]:
        return [{"type": "function", "function": tool.given("type")} for tool in self.tools or ()]

    def _choice(self) -> Mode | NamedTool | Allowed | None:
        choice = self.tool_choice
        if isinstance(choice, ChosenFunction):
            return _named(choice)
        if isinstance(choice, AllowedFunctions):
            allowed = AllowedTools(mode=choice.mode, tools=[_named(tool) for tool in choice.tools])
            return Allowed(type="allowed_tools", allowed_tools=allowed)
        return choice


def _named(tool: ChosenFunction) -> NamedTool:
    return NamedTool(type="function", function=FunctionName(name=tool.name))


def _text(content: str | list[Part]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.text or part.refusal or "" for part in content)


def _add_to_answer(messages: list[dict[str, Any]], item: MessageItem | CallItem | ReasoningItem) -> None:
    """Thoughts, text and calls that follow each other are one message of the assistant."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    message = messages[-1]
    if isinstance(item, MessageItem):
        message["content"] += _text(item.content)
    elif isinstance(item, ReasoningItem):
        thought = "".join(part.text for part in item.content or ())
        if thought:
            message["reasoning_content"] = message.get("reasoning_content", "") + thought
    else:
        function = {"name": item.name, "arguments": item.arguments}
        message.setdefault("tool_calls", []).append({"id": item.call_id, "type": "function", "function": function})
