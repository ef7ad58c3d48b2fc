"""Requests of Ollama's API.

request = parsed(ChatRequest, body)
request.for_worker()
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from edgellm.serve.openai_requests import Text, Tool
from edgellm.serve.problems import Problem
from edgellm.serve.requests import Body, Name, Sampling

# Options of Ollama's that are decided elsewhere: the values that say what is so anyway, and who decides.
_FIXED: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "num_thread": ((0,), "it is set for the server: edgellm serve --threads N"),
    "num_batch": ((), "edgellm chooses it"),
    "num_gpu": ((0, -1), "there are no GPU layers, edgellm runs on the CPU"),
    "main_gpu": ((0,), "edgellm runs on the CPU"),
    "low_vram": ((False,), "edgellm runs on the CPU"),
    "numa": ((False,), "it cannot be set for a request"),
    "f16_kv": ((True,), "it is set for the server: edgellm serve --kv TYPE"),
    "use_mmap": ((True,), "models are always mapped"),
    "use_mlock": ((False,), "it cannot be set for a request"),
    "logits_all": ((False,), "it cannot be set for a request"),
    "vocab_only": ((False,), "it cannot be set for a request"),
    "embedding_only": ((False,), "it cannot be set for a request"),
    "tfs_z": ((1,), "tail-free sampling is not in llama.cpp any more; min_p does much the same"),
    "penalize_newline": ((True,), "a newline is penalized as every other token"),
}
# Nothing is ever shifted out of a context here, so how much of it to keep is of no consequence.
_NO_SHIFT = "the context is not shifted: an answer that reaches its end stops with done_reason length"
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"[+-]?(\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+")


def seconds_of(value: Any) -> Any:
    """A duration as Ollama takes it: seconds, or a text as `5m`, `1h30m`, `-1`."""
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


class Options(Sampling):
    """`options`: how tokens are drawn, by Ollama's names and llama.cpp's, and how much is answered."""

    num_ctx: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    num_predict: Annotated[int, Field(ge=-2, le=2**31 - 1)] | None = None
    num_keep: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    repeat_last_n: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _decided_elsewhere(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for name, (as_it_is, why) in _FIXED.items():
            if value.get(name) is not None and value[name] not in as_it_is:
                raise ValueError(f"{name} is not supported: {why}")
        return {name: each for name, each in value.items() if name not in _FIXED}

    def for_worker(self) -> dict[str, Any]:
        """The same for the worker; without a limit an answer may be as long as the context."""
        body = self.sampling("num_ctx", "num_predict", "num_keep")
        n_predict = self.num_predict or -1
        return {**body, "max_tokens": n_predict if n_predict > 0 else -1}


class _FunctionCall(Body):
    """What is to be called, with its arguments by name."""

    name: Name
    arguments: dict[str, Any] | None = None
    index: int | None = None
    description: str | None = None


class _ToolCall(Body):
    """One of an answer's calls."""

    function: _FunctionCall
    id: str | None = None
    index: int | None = None
    type: Literal["function"] | None = None

    def for_worker(self, name: str) -> dict[str, Any]:
        arguments = json.dumps(self.function.arguments or {}, ensure_ascii=False)
        return {"id": name, "type": "function", "function": {"name": self.function.name, "arguments": arguments}}


def _none_of(value: Any) -> Any:
    """A list that must be empty: the models read no images."""
    if value:
        raise ValueError("images cannot be read: the models here read text only")
    return value


NoImages = Annotated[list[str] | None, BeforeValidator(_none_of)]


class Message(Body):
    """A message of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Text | None = None
    thinking: Text | None = None
    images: NoImages = None
    tool_calls: list[_ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    name: str | None = None


class _Generation(Body):
    """What chat and generate have in common."""

    model: Name | None = None
    stream: bool | None = None
    options: Options | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    think: bool | Literal["", "low", "medium", "high"] | None = None
    keep_alive: Duration | None = None
    template: Literal[""] | None = None
    truncate: bool | None = None
    shift: Literal[False] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @field_validator("shift", mode="before")
    @classmethod
    def _no_shift(cls, value: Any) -> Any:
        if value is True:
            raise ValueError(_NO_SHIFT)
        return value

    @field_validator("template", mode="before")
    @classmethod
    def _own_template(cls, value: Any) -> Any:
        if value:
            raise ValueError("a model has its own template; raw takes a prompt that is templated already")
        return value

    @property
    def wants_stream(self) -> bool:
        """Ollama streams unless it is told not to."""
        return self.stream is not False

    @property
    def sampling(self) -> Options:
        """The options, with what Ollama has beside them."""
        options = self.options or Options()
        return options.model_copy(update={"truncate": bool(self.truncate or options.truncate)})

    def _schema(self) -> dict[str, Any] | None:
        if not self.format:
            return None
        return {"type": "object"} if self.format == "json" else self.format

    def as_chat(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """The worker's body for a chat of these messages."""
        body = {**self._common(), "messages": messages}
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
        """The worker's body for a text that is continued."""
        body = {**self._common(), "prompt": prompt}
        if (schema := self._schema()) is not None:
            body["json_schema"] = schema
        if self.logprobs:
            body["logprobs"] = max(1, self.top_logprobs or 0)
        return body

    def _common(self) -> dict[str, Any]:
        return {**(self.options or Options()).for_worker(), "stream_options": {"include_usage": True}}


class ChatRequest(_Generation):
    """POST /api/chat; without messages it loads the model, or unloads it."""

    messages: list[Message] | None = None
    tools: list[Tool] | None = None

    def for_worker(self) -> dict[str, Any]:
        """The body for the worker."""
        body = self.as_chat(_told(self.messages or []))
        if self.tools:
            body["tools"] = [tool.given() for tool in self.tools]
        return body


class GenerateRequest(_Generation):
    """POST /api/generate; without a prompt it loads the model, or unloads it."""

    prompt: Text | None = None
    system: Text | None = None
    raw: bool | None = None
    images: NoImages = None
    suffix: Literal[""] | None = None
    context: Annotated[list[int], Field(max_length=0)] | None = None

    @field_validator("suffix", mode="before")
    @classmethod
    def _no_suffix(cls, value: Any) -> Any:
        if value:
            raise ValueError("text cannot be filled in between: only what comes after the prompt is written")
        return value

    @field_validator("context", mode="before")
    @classmethod
    def _no_context(cls, value: Any) -> Any:
        if value:
            raise ValueError("a conversation is not kept as token ids; send its messages to /api/chat")
        return value

    @model_validator(mode="after")
    def _raw_alone(self) -> GenerateRequest:
        if self.raw and self.system:
            raise ValueError("raw takes the prompt as it is, without system")
        return self

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The prompt as a chat."""
        told = [{"role": "system", "content": self.system}] if self.system else []
        return [*told, {"role": "user", "content": self.prompt or ""}]


class EmbedRequest(Body):
    """POST /api/embed."""

    model: Name | None = None
    input: Text | Annotated[list[Text], Field(max_length=2048)] | None = None
    truncate: bool | None = None
    dimensions: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    options: Options | None = None
    keep_alive: Duration | None = None

    @property
    def texts(self) -> list[str]:
        """What to embed."""
        return [self.input] if isinstance(self.input, str) else self.input or []


class EmbeddingsRequest(Body):
    """POST /api/embeddings, which came before /api/embed."""

    model: Name | None = None
    prompt: Text | None = None
    truncate: bool | None = None
    options: Options | None = None
    keep_alive: Duration | None = None


class ShowRequest(Body):
    """POST /api/show."""

    model: Name | None = None
    name: Name | None = None
    verbose: bool | None = None

    @property
    def wanted(self) -> str:
        """The model; older clients call it `name`."""
        wanted = self.model or self.name
        if wanted is None:
            raise Problem(400, "model is missing", code="missing-field", field="model")
        return wanted


def _told(messages: list[Message]) -> list[dict[str, Any]]:
    """Messages as chat templates know them; a tool's result is given the id of the call that it answers."""
    told: list[dict[str, Any]] = []
    open_calls: list[dict[str, Any]] = []
    for message in messages:
        each: dict[str, Any] = {"role": message.role, "content": message.content or ""}
        if message.thinking:
            each["reasoning_content"] = message.thinking
        if message.tool_calls:
            open_calls = [
                call.for_worker(call.id or f"call{len(told)}x{index}") for index, call in enumerate(message.tool_calls)
            ]
            each["tool_calls"] = list(open_calls)
        if message.role == "tool":
            name = message.tool_name or message.name
            answered = [call for call in open_calls if name in (None, call["function"]["name"])][:1]
            open_calls = [call for call in open_calls if call not in answered]
            each["tool_call_id"] = message.tool_call_id or (answered[0]["id"] if answered else "call")
            if name:
                each["name"] = name
        told.append(each)
    return told
