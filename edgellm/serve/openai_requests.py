"""Requests of OpenAI's API, with llama.cpp's fields and ours.

request = parsed(ChatRequest, body)
request.for_worker()
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from edgellm.serve.requests import Arguments, Body, Count, Metadata, Name, Streamed
from edgellm.serve.tool_choice import Allowed, Mode, NamedTool, chosen

MaxTokens = Annotated[int, Field(ge=-1, le=2**31 - 1)]
Text = Annotated[str, Field(max_length=32 << 20)]


class TextPart(Body):
    """A piece of a message."""

    type: Literal["text", "input_text", "output_text"]
    text: Text

    @model_validator(mode="before")
    @classmethod
    def _only_text(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("type") in ("image_url", "input_image", "input_audio", "file"):
            raise ValueError(f"{value['type']} cannot be read: the models here read text only")
        return value


class FunctionCall(Body):
    """What a model wants called; `arguments` is JSON in a string."""

    name: Name
    arguments: Arguments = "{}"


class ToolCall(Body):
    """One of an answer's calls."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None


class Message(Body):
    """A message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: Text | None = None
    refusal: Text | None = None

    def for_worker(self) -> dict[str, Any]:
        """As chat templates know it: a developer is a system, an absent content is an empty one."""
        message = self.given("refusal")
        if self.role == "developer":
            message["role"] = "system"
        if isinstance(self.content, list):
            message["content"] = "".join(part.text for part in self.content)
        message.setdefault("content", None if self.tool_calls else "")
        for call in message.get("tool_calls", ()):
            call.setdefault("type", "function")
        return message


class Function(Body):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool."""

    type: Literal["function"]
    function: Function


class JsonSchema(Body):
    """A form for the answer."""

    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | bool, Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> ResponseFormat:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is missing")
        return self


class StreamOptions(Body):
    """What a stream tells besides."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Generation(Streamed):
    """What chat and completions have in common."""

    model: Name | None = None
    stream_options: StreamOptions | None = None
    max_tokens: MaxTokens | None = None
    n: Annotated[int, Field(ge=1, le=64)] | None = None
    user: str | None = None
    timings_per_token: bool | None = None
    return_progress: bool | None = None

    @property
    def wants_usage_chunk(self) -> bool:
        """Whether a stream ends with an event of its own for the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(Generation):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: Mode | NamedTool | Allowed | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    # Of no consequence here, and asked for nothing that could be missed.
    metadata: Metadata | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: list[Literal["text"]] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        if self.logprobs and self.tools:
            raise ValueError("logprobs cannot be told together with tools")
        if self.grammar and (self.tools or (self.response_format and self.response_format.type != "text")):
            raise ValueError("grammar cannot be combined with tools or response_format")
        return self

    @property
    def n_top(self) -> int | None:
        """How many alternatives of each token to tell; None for no log-probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def for_worker(self) -> dict[str, Any]:
        """The body for the worker."""
        body = self.sampling(
            "messages", "max_completion_tokens", "user", "metadata", "store", "service_tier", "modalities",
            "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "stream", "stream_options", "tools",
            "tool_choice", "logprobs", "top_logprobs",
        )  # fmt: skip
        body["messages"] = [message.for_worker() for message in self.messages]
        body = chosen([tool.given() for tool in self.tools or ()], self.tool_choice) | body
        if self.n_top is not None:
            body |= {"logprobs": True, "top_logprobs": max(1, self.n_top)}
        if self.max_completion_tokens is not None:
            body["max_tokens"] = self.max_completion_tokens
        body["stream_options"] = {"include_usage": True}
        return body


Tokens = Annotated[list[Count], Field(min_length=1)]


class CompletionRequest(Generation):
    """POST /v1/completions."""

    prompt: Text | Tokens | Annotated[list[Text], Field(min_length=1)] | Annotated[list[Tokens], Field(min_length=1)]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None

    @property
    def n_top(self) -> int | None:
        """How many alternatives of each token to tell; None for no log-probabilities at all."""
        return self.logprobs

    def for_worker(self) -> dict[str, Any]:
        """The body for the worker; OpenAI generates 16 tokens where nothing is said."""
        body = self.sampling("prompt", "echo", "best_of", "suffix", "user", "stream", "stream_options")
        body["prompt"] = self.prompt
        body.setdefault("max_tokens", 16)
        if self.n_top is not None:
            body["logprobs"] = max(1, self.n_top)
        body["stream_options"] = {"include_usage": True}
        return body

    @property
    def prompts(self) -> list[Any]:
        """One or several, each a text or a list of token ids."""
        one = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        return [self.prompt] if one else list(self.prompt)


class EmbeddingRequest(Body):
    """POST /v1/embeddings."""

    input: Text | Tokens | Annotated[list[Text], Field(min_length=1, max_length=2048)] | list[Tokens]
    model: Name | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: None = None
    user: str | None = None
    truncate: bool | None = None

    @field_validator("dimensions", mode="before")
    @classmethod
    def _as_the_model_has(cls, value: Any) -> None:
        if value is not None:
            raise ValueError("a vector has as many dimensions as the model gives it")

    @field_validator("input", mode="after")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if isinstance(value, list) and not value:
            raise ValueError("there is nothing to embed")
        return value

    @property
    def texts(self) -> list[str | list[int]]:
        """What to embed, each a text or token ids."""
        one = isinstance(self.input, str) or isinstance(self.input[0], int)
        return [self.input] if one else list(self.input)  # type: ignore[list-item, arg-type]
