"""Requests of Ollama's API.

request = parse(OllamaChatRequest, body)
request.for_engine()
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from edgellm.models.sampling_fields import no_bool
from edgellm.wire.body import AnswerPart, Body, MessageBody, MissingField
from edgellm.wire.fields import MAX_INT, Name, Schema, Text, empty_is_none, known_level
from edgellm.wire.openai_requests import ToolDefinition
from edgellm.wire.sampling import RequestSampling

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"[+-]?(\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+")


def seconds_of(value: Any) -> Any:
    """A duration in Ollama's forms: seconds, or a text such as `5m`, `1h30m`, `-1`."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("a duration is seconds (300, or -1: always) or a text such as 5m or 1h30m")
    if not isinstance(value, str):
        return value
    text = value.strip()
    if len(text) <= 40 and _DURATION.fullmatch(text):
        sign = -1.0 if text.startswith("-") else 1.0
        return sign * sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+\.?\d*)(ns|us|µs|ms|s|m|h)", text))
    if len(text) <= 40 and re.fullmatch(r"[+-]?\d+(\.\d*)?", text):
        return float(text)
    raise ValueError("a duration is seconds (300, or -1: always) or a text such as 5m or 1h30m")


Duration = Annotated[float, BeforeValidator(seconds_of)]
KeepAlive = Annotated[Duration | None, empty_is_none]


class OllamaOptions(RequestSampling):
    """`options`: sampling, by Ollama's names and llama.cpp's, and the length of the answer."""

    within = "options."
    num_predict: Annotated[int, no_bool, Field(ge=-2, le=MAX_INT)] | None = None
    repeat_last_n: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = None

    def for_engine(self) -> dict[str, Any]:
        """These options for llama-server; without a limit an answer may fill the context."""
        n_predict = -1 if self.num_predict is None else self.num_predict
        return {**self.sampling("num_predict"), "max_tokens": max(-1, n_predict)}


class OllamaFunctionCall(AnswerPart):
    """The function that a model calls, with its arguments by name."""

    name: Name
    arguments: dict[str, Any] | None = None


class OllamaToolCall(AnswerPart):
    """A call of a tool in an earlier answer."""

    function: OllamaFunctionCall
    id: str | None = None
    type: Literal["function"] | None = None

    def for_engine(self, name: str) -> dict[str, Any]:
        """The call in the form of OpenAI's chat; `name` becomes its id."""
        arguments = json.dumps(self.function.arguments or {}, ensure_ascii=False)
        return {"id": name, "type": "function", "function": {"name": self.function.name, "arguments": arguments}}


def _none_of(value: Any) -> Any:
    """A list that must be empty: the models read no images."""
    if value:
        raise ValueError("images cannot be read: the models here read text only")
    return value


NoImages = Annotated[list[str] | None, BeforeValidator(_none_of)]


class OllamaMessage(MessageBody):
    """A message of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Text | None = None
    thinking: Text | None = None
    images: NoImages = None
    tool_calls: list[OllamaToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    name: str | None = None


class OllamaTextRequest(Body):
    """What chat and generate requests have in common."""

    model: Name | None = None
    stream: bool | None = None
    options: OllamaOptions | None = None
    format: Literal["", "json"] | Schema | None = None
    think: Annotated[bool | Annotated[Literal["low", "medium", "high"], known_level] | None, empty_is_none] = None
    keep_alive: KeepAlive = None
    truncate: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def wants_stream(self) -> bool:
        """Ollama streams by default."""
        return self.stream is not False

    @property
    def sampling(self) -> OllamaOptions:
        """The options, with `truncate`, which Ollama puts beside them."""
        options = self.options or OllamaOptions()
        return options if self.truncate is None else options.model_copy(update={"truncate": self.truncate})

    def _schema(self) -> dict[str, Any] | bool | None:
        if self.format is None or self.format == "":
            return None
        return {"type": "object"} if isinstance(self.format, str) else self.format

    def as_chat(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """The body for llama-server: a chat of these messages."""
        body = {**(self.options or OllamaOptions()).for_engine(), "messages": messages}
        if (schema := self._schema()) is not None:
            form = {"type": "json_object"} if self.format == "json" else None
            body["response_format"] = form or {"type": "json_schema", "json_schema": {"schema": schema}}
        if self.think and isinstance(self.think, str):
            body["reasoning_effort"] = self.think
        elif isinstance(self.think, bool):
            body["chat_template_kwargs"] = {"enable_thinking": self.think}
        if self.logprobs:
            body["logprobs"] = True
            body["top_logprobs"] = self.top_logprobs or 0
        return body

    def as_completion(self, prompt: str) -> dict[str, Any]:
        """The body for llama-server: a text to continue."""
        body = {**(self.options or OllamaOptions()).for_engine(), "prompt": prompt}
        if (schema := self._schema()) is not None:
            body["json_schema"] = schema
        if self.logprobs:
            body["logprobs"] = max(1, self.top_logprobs or 0)
        return body


class OllamaChatRequest(OllamaTextRequest):
    """POST /api/chat; without messages it loads the model, or unloads it."""

    messages: list[OllamaMessage] | None = None
    tools: list[ToolDefinition] | None = None

    def for_engine(self) -> dict[str, Any]:
        """The body for llama-server."""
        body = self.as_chat(_as_chat(self.messages or []))
        if self.tools:
            body["tools"] = [tool.given() for tool in self.tools]
        return body


class GenerateRequest(OllamaTextRequest):
    """POST /api/generate; without a prompt it loads the model, or unloads it."""

    prompt: Text | None = None
    system: Text | None = None
    raw: bool | None = None
    images: NoImages = None

    @model_validator(mode="after")
    def _raw_alone(self) -> GenerateRequest:
        if self.raw and self.system:
            raise ValueError("raw takes the prompt as it is, without system")
        return self

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The prompt as a chat."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        return [*head, {"role": "user", "content": self.prompt or ""}]


class EmbedRequest(Body):
    """POST /api/embed."""

    model: Name | None = None
    input: Text | Annotated[list[Text], Field(max_length=2048)] | None = None
    truncate: bool | None = None
    dimensions: Annotated[int, Field(ge=0, le=MAX_INT)] | None = None
    options: OllamaOptions | None = None
    keep_alive: KeepAlive = None

    @property
    def texts(self) -> list[str]:
        """The texts to embed."""
        return [self.input] if isinstance(self.input, str) else self.input or []


class EmbeddingsRequest(Body):
    """POST /api/embeddings, which came before /api/embed."""

    model: Name | None = None
    prompt: Text | None = None
    truncate: bool | None = None
    options: OllamaOptions | None = None
    keep_alive: KeepAlive = None


class ModelRequest(Body):
    """A request about one model."""

    model: Name | None = None
    name: Name | None = None

    @property
    def wanted(self) -> str:
        """The model; older clients call it `name`."""
        wanted = self.model or self.name
        if wanted is None:
            raise MissingField("model is missing", field="model")
        return wanted


class ShowRequest(ModelRequest):
    """POST /api/show."""

    verbose: bool | None = None


class PullRequest(ModelRequest):
    """POST /api/pull; nothing is downloaded, so it does not matter how."""

    stream: bool | None = None
    insecure: bool | None = None
    username: str | None = None
    password: str | None = None


def _as_chat(messages: list[OllamaMessage]) -> list[dict[str, Any]]:
    """Messages in the form of OpenAI's chat; a tool's result gets the id of the call that it answers."""
    chat: list[dict[str, Any]] = []
    open_calls: list[dict[str, Any]] = []
    for message in messages:
        each: dict[str, Any] = {"role": message.role, "content": message.content or ""}
        if message.thinking:
            each["reasoning_content"] = message.thinking
        if message.tool_calls:
            open_calls = [
                call.for_engine(call.id or f"call{len(chat)}x{index}") for index, call in enumerate(message.tool_calls)
            ]
            each["tool_calls"] = list(open_calls)
        if message.role == "tool":
            name = message.tool_name or message.name
            answered = [call for call in open_calls if name in (None, call["function"]["name"])][:1]
            open_calls = [call for call in open_calls if call not in answered]
            each["tool_call_id"] = message.tool_call_id or (answered[0]["id"] if answered else "call")
            if name:
                each["name"] = name
        chat.append(each)
    return chat
