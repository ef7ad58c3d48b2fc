"""Requests of OpenAI's Responses API.

request = parsed(ResponseRequest, body)
request.for_engine()    # the same as a chat
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from edgellm.serve.protocols.responses.tools import (
    FILE_SEARCH,
    AllowedFunctions,
    ChosenFunction,
    ChosenSearch,
    ChosenServer,
    FileSearchTool,
    FunctionTool,
    McpTool,
    ResponseTool,
    WebSearchTool,
    type_of,
)
from edgellm.serve.tools.wanted import WEB_SEARCH, DecidedCall, FirstCall, Label, WantedTools
from edgellm.tools.mcp.servers import tool_name
from edgellm.tools.tool import OWN
from edgellm.wire.body import AnswerPart, Body, FieldError, MessageBody
from edgellm.wire.fields import LABELS, MAX_INT, Arguments, Count, Effort, Metadata, Name, Schema, Text
from edgellm.wire.openai_requests import Part, text_of
from edgellm.wire.sampling import StreamedRequest
from edgellm.wire.tool_choice import Allowed, AllowedTools, FunctionName, Mode, NamedTool, chosen

# What an answer may contain besides; those of tools that are not here have nothing to add.
Includable = Literal[
    "message.output_text.logprobs", "reasoning.encrypted_content", "message.input_image.image_url",
    "file_search_call.results", "web_search_call.results", "web_search_call.action.sources",
    "computer_call_output.output.image_url", "code_interpreter_call.outputs",
]  # fmt: skip


Content = Text | list[Part]


class MessageItem(MessageBody):
    """A message."""

    type: Literal["message"] | None = None
    role: Literal["user", "system", "developer", "assistant"]
    content: Content


class CallItem(AnswerPart):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: str
    name: Name
    arguments: Arguments


class CallOutputItem(Body):
    """What a call gave."""

    ignored = ("created_by", "id", "metadata", "name", "namespace", "status")
    type: Literal["function_call_output"]
    call_id: str
    output: Content


class ReasoningText(AnswerPart):
    """Thoughts."""

    type: Literal["reasoning_text"]
    text: Text


class ReasoningItem(AnswerPart):
    """What the model thought before an earlier answer. What only its provider can decrypt is left out."""

    type: Literal["reasoning"]
    content: list[ReasoningText] | None = None


class SearchItem(AnswerPart):
    """A search of an earlier answer. The next question is searched anew."""

    type: Literal["file_search_call", "web_search_call"]


class ServerListItem(AnswerPart):
    """The tools of an MCP server that the client has been shown."""

    type: Literal["mcp_list_tools"]
    server_label: Label


class ServerCallItem(AnswerPart):
    """A call that this server made for an earlier answer."""

    type: Literal["mcp_call"]
    id: str
    server_label: Label
    name: Name
    arguments: Arguments
    output: Text | None = None
    error: Any = None
    approval_request_id: str | None = None


class ApprovalItem(AnswerPart):
    """A call that the client was asked about."""

    type: Literal["mcp_approval_request"]
    id: Name
    server_label: Label
    name: Name
    arguments: Arguments


class DecisionItem(Body):
    """The client's answer to such a question."""

    ignored = ("id",)
    type: Literal["mcp_approval_response"]
    approval_request_id: Name
    approve: bool
    reason: Annotated[str, Field(max_length=4000)] | None = None


def _item_type(value: Any) -> str:
    return type_of(value) or "message"


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[CallOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[SearchItem, Tag("file_search_call")]
    | Annotated[SearchItem, Tag("web_search_call")]
    | Annotated[ServerListItem, Tag("mcp_list_tools")]
    | Annotated[ServerCallItem, Tag("mcp_call")]
    | Annotated[ApprovalItem, Tag("mcp_approval_request")]
    | Annotated[DecisionItem, Tag("mcp_approval_response")],
    Discriminator(_item_type),
]


class TextFormat(Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: Annotated[Schema | None, Field(alias="schema")] = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> TextFormat:
        if self.type == "json_schema" and self.schema_ is None:
            raise ValueError("schema is missing")
        return self

    def for_engine(self) -> dict[str, Any]:
        """As chat has it."""
        if self.type != "json_schema":
            return {"type": self.type}
        return {"type": self.type, "json_schema": {"name": self.name or "answer", "schema": self.schema_}}


class TextOptions(Body):
    """About the text."""

    format: TextFormat | None = None


class ReasoningOptions(Body):
    """How long to think; templates without this setting ignore it."""

    effort: Effort | None = None
    # Thoughts come whole, which is more than a summary.
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class ResponseStreamOptions(Body):
    """What a stream has besides the answer: nothing that can be chosen here."""


class ResponseRequest(StreamedRequest):
    """POST /v1/responses."""

    ignored = LABELS
    model: Name | None = None
    input: Text | Annotated[list[Item], Field(min_length=1)]
    instructions: Text | None = None
    max_output_tokens: Count | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: Mode | ChosenFunction | ChosenSearch | ChosenServer | AllowedFunctions | None = None
    max_tool_calls: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[Includable] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    stream_options: ResponseStreamOptions | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    # Accepted and ignored: these do not change the answer.
    metadata: Metadata | None = None
    user: str | None = None

    @property
    def wants_truncation(self) -> bool | None:
        """Whether to shorten a prompt that is too long; None where the request does not say."""
        return self.truncate if self.truncation is None else self.truncation == "auto" or bool(self.truncate)

    @property
    def wants_logprobs(self) -> bool:
        """Whether to return log-probabilities of the tokens."""
        return "message.output_text.logprobs" in (self.include or ())

    @property
    def search(self) -> FileSearchTool | None:
        """The documents to search first, unless no tool may be used."""
        found = [tool for tool in self.tools or () if isinstance(tool, FileSearchTool)]
        return found[0] if found and self.tool_choice != "none" else None

    @property
    def server_tools(self) -> WantedTools:
        """The tools of the server that the model may call; none where `tool_choice` rules them out."""
        choice, tools = self.tool_choice, self.tools or ()
        if choice == "none" or isinstance(choice, ChosenFunction | AllowedFunctions):
            return WantedTools()
        items = self.input if isinstance(self.input, list) else []
        listed = {item.server_label for item in items if isinstance(item, ServerListItem)}
        return WantedTools(
            usual=(WEB_SEARCH,) if any(isinstance(tool, WebSearchTool) for tool in tools) else (),
            servers=tuple(tool.wanted(listed) for tool in tools if isinstance(tool, McpTool)),
            first=self._first_call(),
            most_calls=self.max_tool_calls,
            decided=tuple(_decided(items)),
        )

    def _first_call(self) -> FirstCall | None:
        choice = self.tool_choice
        if isinstance(choice, ChosenServer):
            return FirstCall(choice.name or "", choice.server_label)
        if isinstance(choice, ChosenSearch) and choice.type != FILE_SEARCH:
            return FirstCall(WEB_SEARCH)
        return FirstCall() if choice == "required" and self.search is None else None

    @property
    def wants_pages(self) -> bool:
        """Whether to return which pages a search in the web found."""
        return "web_search_call.action.sources" in (self.include or ())

    @property
    def wants_results(self) -> bool:
        """Whether to return what a search found."""
        return "file_search_call.results" in (self.include or ())

    def for_engine(self, *, has_server_tools: bool = False) -> dict[str, Any]:
        """The same request as a chat; with tools of the server, the choice among all tools is made elsewhere."""
        body = self.sampling(*(set(ResponseRequest.model_fields) - set(StreamedRequest.model_fields)), "stream")
        body |= {"messages": self._messages(), **self.given_only("parallel_tool_calls", "chat_template_kwargs")}
        body |= chosen(self._tools(), None if has_server_tools else self._choice())
        if self.max_output_tokens is not None:
            body["max_tokens"] = self.max_output_tokens
        if self.text is not None and self.text.format is not None:
            body["response_format"] = self.text.format.for_engine()
        if self.reasoning is not None and self.reasoning.effort is not None:
            body["reasoning_effort"] = self.reasoning.effort
        if self.wants_logprobs:
            body |= {"logprobs": True, "top_logprobs": max(1, self.top_logprobs or 0)}
        return body

    def _messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        if self.instructions is not None:
            messages.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            return [*messages, {"role": "user", "content": self.input}]
        for item in self.input:
            if isinstance(item, CallOutputItem):
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": text_of(item.output)})
            elif isinstance(item, MessageItem) and item.role != "assistant":
                role = "system" if item.role == "developer" else item.role
                messages.append({"role": role, "content": text_of(item.content)})
            elif isinstance(item, ServerCallItem):
                messages += _called(item)
            elif isinstance(item, MessageItem | CallItem | ReasoningItem):
                _add_to_answer(messages, item)
        return messages

    def _tools(self) -> list[dict[str, Any]]:
        functions = [tool for tool in self.tools or () if isinstance(tool, FunctionTool)]
        return [{"type": "function", "function": tool.given("type")} for tool in functions]

    def _choice(self) -> Mode | NamedTool | Allowed | None:
        choice = self.tool_choice
        if isinstance(choice, ChosenSearch) or (choice == "required" and self.search is not None):
            return "auto" if self._tools() else None  # the search is made in any case, or cannot be
        if isinstance(choice, ChosenServer):
            raise FieldError(f"tool_choice: there is no MCP server {choice.server_label!r}", field="tool_choice")
        if isinstance(choice, ChosenFunction):
            return _named(choice)
        if isinstance(choice, AllowedFunctions):
            allowed = AllowedTools(mode=choice.mode, tools=[_named(tool) for tool in choice.tools])
            return Allowed(type="allowed_tools", allowed_tools=allowed)
        return choice


def _named(tool: ChosenFunction) -> NamedTool:
    return NamedTool(type="function", function=FunctionName(name=tool.name))


def _called(item: ServerCallItem) -> list[dict[str, Any]]:
    """A call of an earlier answer and its result, as chat has them."""
    name = item.name if item.server_label == OWN else tool_name(item.server_label, item.name, ())
    function = {"name": name, "arguments": item.arguments}
    said = item.output if item.output is not None else "error: the call failed"
    return [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": item.id, "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": item.id, "content": said},
    ]


def _decided(items: Iterable[Any]) -> Iterator[DecidedCall]:
    """The calls that the client has decided about, and that were not made since.

    Raises:
        FieldError: an answer to a question that was not asked.
    """
    items = list(items)
    asked = {item.id: item for item in items if isinstance(item, ApprovalItem)}
    made = {item.approval_request_id for item in items if isinstance(item, ServerCallItem)}
    for item in items:
        if isinstance(item, DecisionItem) and item.approval_request_id not in made:
            about = asked.get(item.approval_request_id)
            if about is None:
                shown = item.approval_request_id[:60]
                message = f"there is no mcp_approval_request {shown!r} in input; nothing is kept here, so send it along"
                raise FieldError(message, field="input")
            about_call = (about.id, about.server_label, about.name, about.arguments)
            yield DecidedCall(*about_call, item.approve, item.reason or "")


def _add_to_answer(messages: list[dict[str, Any]], item: MessageItem | CallItem | ReasoningItem) -> None:
    """Thoughts, text and calls that follow each other are one message of the assistant."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    message = messages[-1]
    if isinstance(item, MessageItem):
        message["content"] += text_of(item.content)
    elif isinstance(item, ReasoningItem):
        thought = "".join(part.text for part in item.content or ())
        if thought:
            message["reasoning_content"] = message.get("reasoning_content", "") + thought
    else:
        function = {"name": item.name, "arguments": item.arguments}
        message.setdefault("tool_calls", []).append({"id": item.call_id, "type": "function", "function": function})
