"""One line of a batch's input as a request: OpenAI's batch lines, `{"prompt": ...}` lines and plain text.

    parse_line(b'{"prompt": "What is a ternary weight?", "max_tokens": 50}', jsonl=True, models={"smollm2"})

The bodies are those of `wire/`, so a batch accepts and refuses what the server does. A field that only the server can
honour is an error of its line, which names the field: nothing is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from edgellm.batch.lines import read_lines
from edgellm.engine.sampling import OPTIONS, RANDOM_SEED
from edgellm.errors import BadRequest
from edgellm.run.message import Message
from edgellm.wire.body import FieldError, UnsupportedField, parse, refuse_others
from edgellm.wire.openai_requests import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    ResponseFormat,
    TextRequest,
)

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
KINDS: dict[str, type[ChatRequest | CompletionRequest | EmbeddingRequest]] = {
    CHAT: ChatRequest,
    COMPLETIONS: CompletionRequest,
    EMBEDDINGS: EmbeddingRequest,
}
MAX_CUSTOM_ID = 512
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
HONOURED = OPTIONS.keys() | {
    "model", "messages", "prompt", "input", "encoding_format", "seed", "stop", "max_tokens", "max_completion_tokens",
    "response_format", "dimensions", "token_ids",
    # They label a request, or are about streams, which no row has.
    "user", "metadata", "stream_options", "num_keep",
}  # fmt: skip
# What a line calls the documents to answer from.
DOCS = "docs"
# What it calls the tools that the model may call.
TOOLS = "tools"
# What it calls the switch of the loop guard.
GUARD = "loop_guard"
IN_A_BATCH = "in a batch"


@dataclass(frozen=True, slots=True)
class TextRow:
    """A row that wants text: an answer to `messages`, or the continuation of `prompt` (a text or token ids).

    `sampling` holds what differs from the job's; `schema` is the text of a JSON schema that the answer must match.
    `docs` names the documents to answer from: None for the batch's own, empty for none. `loop_guard` says whether an
    answer that repeats itself is ended: None for what the batch does. `tools` names those that may be called: None for
    the batch's own, empty for none.
    """

    messages: tuple[Message, ...] = ()
    prompt: str | tuple[int, ...] = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    schema: str | None = None
    docs: str | None = None
    loop_guard: bool | None = None
    tools: tuple[str, ...] | None = None

    @property
    def is_chat(self) -> bool:
        """Whether to apply the chat template."""
        return bool(self.messages)


@dataclass(frozen=True, slots=True)
class EmbeddingRow:
    """A row that wants vectors, of texts or their token ids; `dimensions` is how many numbers it expects in each."""

    inputs: tuple[str | tuple[int, ...], ...]
    base64: bool = False
    dimensions: int | None = None


Row = TextRow | EmbeddingRow


def parse_line(
    data: bytes, *, jsonl: bool, models: Collection[str], raw: bool = False
) -> tuple[str | None, Row | BadRequest]:
    """The custom_id of a line, if it has one, and its request, or what is wrong with it.

    Args:
        jsonl: the file has a JSON object in each line; otherwise each line is a prompt.
        models: names that a request may give its model.
        raw: prompts are continued as they are, without the chat template.
    """
    custom_id = None
    try:
        text = _text_of(data)
        if not jsonl:
            return None, _prompted({"prompt": text}, raw, models)
        line = _object_of(text)
        custom_id = _custom_id(line)
        docs, guard, tools = _docs(line), _loop_guard(line), _tools(line)
        row = _row(line, models, raw)
        if isinstance(row, TextRow) and (row.is_chat or not (docs or tools)):
            return custom_id, replace(row, docs=docs, loop_guard=guard, tools=tools)
        if tools is not None:
            raise FieldError(f"{TOOLS}: only a chat can call tools", field=TOOLS)
        if docs is not None:
            raise FieldError("docs: only a chat can be answered from documents", field=DOCS)
        if guard is not None:
            raise FieldError(f"{GUARD}: it is for answers, not for vectors", field=GUARD)
        return custom_id, row
    except BadRequest as error:
        return custom_id, error


def _text_of(data: bytes) -> str:
    if b"\0" in data:
        raise BadRequest("the line contains NUL bytes", why=f"the first is byte {data.index(0) + 1}")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadRequest("the line is not UTF-8", why=f"byte {error.start + 1} is 0x{data[error.start]:02x}") from error


def _object_of(text: str) -> dict[str, Any]:
    try:
        line = json.loads(text, parse_constant=_refuse_constant)
        if "\\ud" in text.lower():
            json.dumps(line, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadRequest("the line has half a character", why="a \\ud... escape without its other half") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest("the line is not JSON", why=str(error)) from error
    if not isinstance(line, dict):
        raise BadRequest("the line is not a JSON object", why=f"it is {_shown(line)}")
    return {name: value for name, value in line.items() if value is not None}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _custom_id(line: dict[str, Any]) -> str | None:
    custom_id = line.pop("custom_id", None)
    own = line.pop("id", None) if "prompt" in line else None  # how other tools name their rows
    if custom_id is None and isinstance(own, str | int) and not isinstance(own, bool):
        custom_id = str(own)
    if custom_id is not None and not (isinstance(custom_id, str) and 0 < len(custom_id) <= MAX_CUSTOM_ID):
        raise BadRequest(f"custom_id is a text of 1 to {MAX_CUSTOM_ID} characters, not {_shown(custom_id)}")
    return custom_id


def _docs(line: dict[str, Any]) -> str | None:
    """The documents that a line names, beside its prompt or its body; `false` stands for none."""
    docs = line.pop(DOCS, None)
    if docs is not None and not isinstance(docs, str) and docs is not False:
        raise FieldError(f"docs is the name of a collection or false, not {_shown(docs)}", field="docs")
    return "" if docs is False else docs


def _loop_guard(line: dict[str, Any]) -> bool | None:
    """Whether a line wants the loop guard, beside its prompt or its body."""
    guard = line.pop(GUARD, None)
    if guard is not None and not isinstance(guard, bool):
        raise FieldError(f"{GUARD} is true or false, not {_shown(guard)}", field=GUARD)
    return guard


def _tools(line: dict[str, Any]) -> tuple[str, ...] | None:
    """The tools that a line names, beside its prompt or its body; `false` stands for none.

    A list of objects is the field of OpenAI's requests, which is refused where the rest of the line is read.
    """
    tools = line.get(TOOLS)
    if tools is False or (isinstance(tools, list) and all(isinstance(each, str) for each in tools)):
        return tuple(line.pop(TOOLS) or ())
    return None


def documents_named(path: Path) -> set[str]:
    """The documents that the rows of a file of JSON lines name."""
    named = (_docs_named(line.data) for line in read_lines(path) if line.data and b'"docs"' in line.data)
    return set(filter(None, named))


def _docs_named(data: bytes) -> str | None:
    """The documents that a line names; of a wrong line none."""
    try:
        return _docs(_object_of(_text_of(data)))
    except BadRequest:
        return None


def _row(line: dict[str, Any], models: Collection[str], raw: bool) -> Row:
    if "url" not in line and "body" not in line:
        return _prompted(line, raw, models)
    method, url, body = line.pop("method", "POST"), line.pop("url", None), line.pop("body", None)
    if method != "POST":
        raise BadRequest(f"method is POST, not {_shown(method)}")
    if not isinstance(url, str) or url not in KINDS:
        raise BadRequest(f"url is one of {', '.join(KINDS)}, not {_shown(url)}")
    if not isinstance(body, dict):
        raise BadRequest(f"body is an object, not {_shown(body)}")
    if line:
        raise BadRequest(f"{_shown(next(iter(line)))} is not known beside custom_id, method, url and body")
    return _checked(parse(KINDS[url], body), models)


def _prompted(line: dict[str, Any], raw: bool, models: Collection[str]) -> Row:
    """A prompt by itself, with the fields of a chat completion beside it, and perhaps a system message."""
    if "prompt" not in line:
        raise BadRequest('the line has neither "url" and "body" nor "prompt"')
    prompt, system = line.pop("prompt"), line.pop("system", None)
    if not isinstance(prompt, str):
        raise BadRequest(f"prompt is a text, not {_shown(prompt)}")
    if not prompt.strip():
        raise BadRequest("the prompt is empty")
    if system is not None and (raw or not isinstance(system, str)):
        raise BadRequest(f"system is a text, and not for --raw; it is {_shown(system)}")
    if "messages" in line:
        raise BadRequest("a line has a prompt or messages, not both")
    if raw:
        return _checked(parse(CompletionRequest, {**line, "prompt": prompt}), models)
    head = [] if system is None else [{"role": "system", "content": system}]
    messages = [*head, {"role": "user", "content": prompt}]
    return _checked(parse(ChatRequest, {**line, "messages": messages}), models)


def _checked(request: ChatRequest | CompletionRequest | EmbeddingRequest, models: Collection[str]) -> Row:
    if request.model is not None and request.model not in models:
        known = " or ".join(sorted(models))
        raise FieldError(f"model is {_shown(request.model)}, this batch is for {known}", field="model")
    refuse_others(request, HONOURED, IN_A_BATCH)
    match request:
        case ChatRequest():
            messages = tuple(_message(message, index) for index, message in enumerate(request.messages))
            return _text_row(request, messages=messages)
        case CompletionRequest():
            return _text_row(request, prompt=_only_prompt(request))
        case EmbeddingRequest():
            inputs = tuple(_checked_text(each, "input") for each in request.texts)
            return EmbeddingRow(inputs, request.encoding_format == "base64", request.dimensions)


def _text_row(request: TextRequest, **prompt: Any) -> TextRow:
    sampling = {name: value for name, value in request.sampling().items() if name in OPTIONS or name == "seed"}
    if sampling.get("seed") == RANDOM_SEED:
        del sampling["seed"]
    schema = _schema(request.response_format)
    return TextRow(**prompt, sampling=sampling, max_tokens=request.limit, stop=tuple(request.stops), schema=schema)


def _message(message: ChatMessage, index: int) -> Message:
    """A message for the chat template, which knows texts of three roles."""
    if message.role not in ROLES:
        raise UnsupportedField(f"messages.{index}.role cannot be {message.role} {IN_A_BATCH}", field="messages")
    for name, value in message.given("role", "content", "refusal").items():
        if value:
            raise UnsupportedField(f"messages.{index}.{name} cannot be honoured {IN_A_BATCH}", field="messages")
    text = message.for_engine()["content"]
    return {"role": ROLES[message.role], "content": text}


def _only_prompt(request: CompletionRequest) -> str | tuple[int, ...]:
    prompts = request.prompts
    if len(prompts) != 1:
        raise FieldError(f"prompt: a row has one prompt, not {len(prompts)}", field="prompt")
    return _checked_text(prompts[0], "prompt")


def _checked_text(text: str | list[int], name: str) -> str | tuple[int, ...]:
    if not text:
        raise FieldError(f"{name}: it is empty", field=name)
    return text if isinstance(text, str) else tuple(text)


def _schema(form: ResponseFormat | None) -> str | None:
    """The JSON schema that a response_format stands for, as text."""
    schema = form.answer_schema if form else None
    return None if schema is None else json.dumps(schema)


def _shown(value: Any) -> str:
    """A value of the request, short enough for a message."""
    if value is None:
        return "absent"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = "too large a value"
    return text if len(text) <= 60 else f"{text[:59]}…"
