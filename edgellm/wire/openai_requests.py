"""Requests of OpenAI's API, with llama.cpp's fields and edgellm's own: what serve and batch both accept.

request = parse(ChatRequest, body)
request.for_engine()
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, ValidationInfo, field_validator, model_validator

from edgellm.models.sampling_fields import no_bool
from edgellm.wire.body import AnswerPart, Body, MessageBody
from edgellm.wire.fields import (
    LABELS,
    MAX_INT,
    Arguments,
    Count,
    Effort,
    MaxTokens,
    Metadata,
    Name,
    Schema,
    Text,
    Tokens,
    false_is_none,
    joined,
    only_text,
)
from edgellm.wire.sampling import StreamedRequest
from edgellm.wire.tool_choice import Allowed, Mode, NamedTool, chosen

# What OpenAI generates for a completion that does not say.
DEFAULT_MAX_TOKENS = 16
# What a part of a message may say besides its text.
PART_LABELS = (
    "annotations", "cache_control", "citations", "extras", "id", "index", "logprobs", "parsed",
    "provider_specific_fields",
)  # fmt: skip
# What a tool's definition may say of the tool besides: it does not change the answer.
TOOL_LABELS = ("allowed_callers", "cache_control", "defer_loading", "eager_input_streaming", "input_examples")
FOREIGN_TOKENS = (
    "these are token ids, and another tokenizer's ids would give wrong vectors in silence; send texts "
    "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)), "
    'or "token_ids": true if they are this model\'s own'
)


class TextPart(Body):
    """A part of a message: text, the only kind that the models here read."""

    ignored = PART_LABELS
    type: Literal["text", "input_text", "output_text"]
    text: Text


class RefusalPart(Body):
    """The refusal of an earlier answer, which is its text."""

    ignored = PART_LABELS
    type: Literal["refusal"]
    refusal: Text

    @property
    def text(self) -> str:
        """The text."""
        return self.refusal


Part = Annotated[TextPart | RefusalPart, Discriminator("type"), only_text]


def text_of(content: str | Iterable[TextPart | RefusalPart] | None) -> str:
    """The content of a message as one text."""
    if content is None or isinstance(content, str):
        return content or ""
    return joined(part.text for part in content)


class FunctionCall(AnswerPart):
    """The function that a model calls; `arguments` is JSON in a string."""

    name: Name
    arguments: Arguments = "{}"


class ToolCall(AnswerPart):
    """A call of a tool in an earlier answer."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None


class ChatMessage(MessageBody):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: Text | None = None
    # What other servers call the same.
    reasoning: Text | None = None
    refusal: Text | None = None

    def for_engine(self) -> dict[str, Any]:
        """The message as chat templates take it: a developer message is a system message, absent content is empty."""
        message = self.given("refusal", "reasoning", "content")
        if self.role == "developer":
            message["role"] = "system"
        if self.reasoning:
            message.setdefault("reasoning_content", self.reasoning)
        text = text_of(self.refusal if self.content is None else self.content)
        message["content"] = text or (None if self.tool_calls else "")
        for call in message.get("tool_calls", ()):
            call.setdefault("type", "function")
        return message


class FunctionDefinition(Body):
    """A function that the model may call; `parameters` is a JSON schema."""

    ignored = TOOL_LABELS
    name: Name
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class ToolDefinition(Body):
    """A tool that the model may call; functions are the only kind."""

    ignored = TOOL_LABELS

    type: Literal["function"]
    function: FunctionDefinition


class JsonSchema(Body):
    """The JSON schema that an answer must match."""

    name: str | None = None
    description: str | None = None
    schema_: Annotated[Schema | bool, Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(Body):
    """The format of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: Annotated[Schema | None, Field(alias="schema")] = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is missing")
        return self

    @property
    def answer_schema(self) -> dict[str, Any] | bool | None:
        """The JSON schema that the answer must match, None for any text."""
        if self.type == "text":
            return None
        if self.json_schema is not None:
            return self.json_schema.schema_
        return {"type": "object"} if self.schema_ is None else self.schema_


class StreamOptions(Body):
    """What a stream has besides the answer."""

    include_usage: bool | None = None
    # vLLM's: the counts so far on every chunk.
    continuous_usage_stats: bool | None = None


class TextRequest(StreamedRequest):
    """What chat and completion requests have in common."""

    ignored = LABELS
    model: Name | None = None
    stream_options: StreamOptions | None = None
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    response_format: ResponseFormat | None = None
    n: Annotated[int, no_bool, Field(ge=1, le=64)] | None = None
    user: str | None = None
    timings_per_token: bool | None = None
    return_progress: bool | None = None

    @property
    def limit(self) -> int | None:
        """The most tokens to generate; `max_completion_tokens` has replaced `max_tokens` at OpenAI, so it counts."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def wants_usage_chunk(self) -> bool:
        """Whether a stream ends with a separate event for the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def wants_usage_on_chunks(self) -> bool:
        """Whether every chunk of a stream has the usage so far."""
        return bool(self.stream and self.stream_options and self.stream_options.continuous_usage_stats)

    def _counts(self) -> dict[str, Any]:
        """llama-server counts tokens as they come in its timings."""
        return {"timings_per_token": True} if self.wants_usage_on_chunks else {}


class ChatRequest(TextRequest):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: Mode | NamedTool | Allowed | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    # Accepted and ignored: it does not change the answer.
    metadata: Metadata | None = None
    # Ours: tools that the server runs, by name; true for all that it has.
    server_tools: Annotated[list[Name], Field(max_length=64)] | bool | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.logprobs and (self.tools or self.server_tools):
            raise ValueError("logprobs cannot be combined with tools")
        if self.grammar and (
            self.tools or self.server_tools or (self.response_format and self.response_format.type != "text")
        ):
            raise ValueError("grammar cannot be combined with tools or response_format")
        return self

    @property
    def n_top(self) -> int | None:
        """How many alternatives of each token to return; None for no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def chooses_of_server(self) -> bool:
        """Whether `tool_choice` asks for a call of any tool, or of one that is not the client's."""
        named = self.tool_choice.function.name if isinstance(self.tool_choice, NamedTool) else None
        own = {tool.function.name for tool in self.tools or ()}
        is_open = self.tool_choice == "required" or (named is not None and named not in own)
        return bool(self.server_tools) and is_open

    def for_engine(self) -> dict[str, Any]:
        """The body for llama-server."""
        body = self.sampling(
            "messages", "max_completion_tokens", "user", "metadata", "stream", "stream_options", "tools", "tool_choice",
            "logprobs", "top_logprobs", "server_tools",
        )  # fmt: skip
        body["messages"] = [message.for_engine() for message in self.messages]
        body |= chosen(
            [tool.given() for tool in self.tools or ()], None if self.chooses_of_server else self.tool_choice
        )
        if self.n_top is not None:
            body |= {"logprobs": True, "top_logprobs": max(1, self.n_top)}
        if self.limit is not None:
            body["max_tokens"] = self.limit
        return body | self._counts()


class CompletionRequest(TextRequest):
    """POST /v1/completions."""

    prompt: Text | Tokens | Annotated[list[Text], Field(min_length=1)] | Annotated[list[Tokens], Field(min_length=1)]
    echo: bool | None = None
    logprobs: Annotated[Annotated[int, no_bool, Field(ge=0, le=20)] | None, false_is_none] = None

    @property
    def n_top(self) -> int | None:
        """How many alternatives of each token to return; None for no log-probabilities."""
        return self.logprobs

    def for_engine(self) -> dict[str, Any]:
        """The body for llama-server."""
        body = self.sampling(
            "prompt", "echo", "user", "stream", "stream_options", "max_completion_tokens", "response_format"
        )
        body["prompt"] = self.prompt
        body["max_tokens"] = DEFAULT_MAX_TOKENS if self.limit is None else self.limit
        if self.response_format is not None and (schema := self.response_format.answer_schema) is not None:
            body["json_schema"] = schema
        if self.n_top is not None:
            body["logprobs"] = max(1, self.n_top)
        return body | self._counts()

    @property
    def prompts(self) -> list[Any]:
        """The prompts, each a text or a list of token ids."""
        one = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        return [self.prompt] if one else list(self.prompt)


class EmbeddingRequest(Body):
    """POST /v1/embeddings; `token_ids` says that lists of numbers in `input` are tokens of this model."""

    ignored = LABELS
    token_ids: bool | None = None  # ours; before `input`, which is checked with it
    input: Text | Tokens | Annotated[list[Text], Field(min_length=1, max_length=2048)] | list[Tokens]
    model: Name | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, no_bool, Field(ge=1, le=MAX_INT)] | None = None
    user: str | None = None
    # Ours.
    truncate: bool | None = None
    # Ollama's: ignored, because a text that is too long is an error anyway.
    num_ctx: Count | None = None

    @field_validator("input", mode="after")
    @classmethod
    def _can_be_embedded(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, list) and not value:
            raise ValueError("there is nothing to embed")
        if isinstance(value, list) and not isinstance(value[0], str) and not info.data.get("token_ids"):
            raise ValueError(FOREIGN_TOKENS)
        return value

    @property
    def texts(self) -> list[str | list[int]]:
        """The inputs, each a text or a list of token ids."""
        one = isinstance(self.input, str) or isinstance(self.input[0], int)
        return [self.input] if one else list(self.input)  # type: ignore[list-item, arg-type]
