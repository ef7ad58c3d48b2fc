"""One line of a batch's input as a request: OpenAI's batch lines, `{"prompt": ...}` lines and plain text.

    parse_line(b'{"prompt": "What is a ternary weight?", "max_tokens": 50}', jsonl=True, models={"smollm2"})

Every field of a request is honoured, or it is an error of that line that names the field: nothing is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from edgellm.errors import BadRequest
from edgellm.run.chat_template import Message
from edgellm.run.structure import JSON_OBJECT

Kind = Literal["chat", "completion", "embedding"]
ENDPOINTS: dict[str, Kind] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completion",
    "/v1/embeddings": "embedding",
}
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
LONGEST_ID = 512
MAX_STOPS = 16
MAX_TOKEN = 2**31 - 1
# Names of fields, the names in `Sampling`, and the ranges.
SAMPLING: dict[str, tuple[str, type, float, float]] = {
    "temperature": ("temperature", float, 0, 5),
    "top_p": ("top_p", float, 0, 1),
    "min_p": ("min_p", float, 0, 1),
    "top_k": ("top_k", int, 0, MAX_TOKEN),
    "frequency_penalty": ("frequency_penalty", float, -2, 2),
    "presence_penalty": ("presence_penalty", float, -2, 2),
    "repeat_penalty": ("repeat_penalty", float, 0.01, 5),
    "seed": ("seed", int, 0, 2**32 - 2),
}
# Values that ask for nothing: what a client may send although it makes no difference.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "stream": (False,),
    "echo": (False,),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "store": (False,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
}
# Fields that only label a request.
LABELS = ("user", "metadata", "safety_identifier", "prompt_cache_key")


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer that is wanted: to `messages`, or as the continuation of `prompt` (a text or its tokens).

    `sampling` holds what differs from the job's; `schema` is the text of a JSON schema that the answer must match.
    """

    messages: tuple[Message, ...] = ()
    prompt: str | tuple[int, ...] = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    schema: str | None = None

    @property
    def is_chat(self) -> bool:
        """Whether the chat template is to be applied."""
        return bool(self.messages)


@dataclass(frozen=True, slots=True)
class Embedding:
    """Vectors that are wanted, for texts or their tokens."""

    inputs: tuple[str | tuple[int, ...], ...]
    base64: bool = False


Request = Generation | Embedding


def parse_line(
    data: bytes, *, jsonl: bool, models: Collection[str], raw: bool = False
) -> tuple[str | None, Request | BadRequest]:
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
            return None, _prompted(text, {}, raw)
        line = _object_of(text)
        custom_id = _custom_id(line)
        return custom_id, _request(line, models, raw)
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
    return line


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _custom_id(line: dict[str, Any]) -> str | None:
    custom_id = line.pop("custom_id", None)
    if custom_id is not None and not (isinstance(custom_id, str) and 0 < len(custom_id) <= LONGEST_ID):
        raise BadRequest(f"custom_id is a text of 1 to {LONGEST_ID} characters, not {_shown(custom_id)}")
    return custom_id


def _request(line: dict[str, Any], models: Collection[str], raw: bool) -> Request:
    if "url" not in line and "body" not in line:
        if "prompt" not in line:
            raise BadRequest('the line has neither "url" and "body" nor "prompt"')
        line.pop("id", None)
        prompt = line.pop("prompt")
        if not isinstance(prompt, str):
            raise BadRequest(f"prompt is a text, not {_shown(prompt)}")
        return _prompted(prompt, line, raw, models)
    method, url, body = line.pop("method", "POST"), line.pop("url", None), line.pop("body", None)
    if method != "POST":
        raise BadRequest(f"method is POST, not {_shown(method)}")
    if not isinstance(url, str) or url not in ENDPOINTS:
        raise BadRequest(f"url is one of {', '.join(ENDPOINTS)}, not {_shown(url)}")
    if not isinstance(body, dict):
        raise BadRequest(f"body is an object, not {_shown(body)}")
    if line:
        raise BadRequest(f"{_shown(next(iter(line)))} is not known beside custom_id, method, url and body")
    fields = Fields(body)
    fields.model(models)
    match ENDPOINTS[url]:
        case "chat":
            request: Request = _generation(fields, messages=_messages(fields.take("messages")))
        case "completion":
            request = _generation(fields, prompt=_token_or_text(fields.take("prompt"), "prompt"))
        case "embedding":
            request = _embedding(fields)
    fields.finish()
    return request


def _prompted(text: str, line: dict[str, Any], raw: bool, models: Collection[str] = ()) -> Generation:
    """A prompt by itself, with the fields of a chat completion beside it, and perhaps a system message."""
    if not text.strip():
        raise BadRequest("the prompt is empty")
    fields = Fields(line)
    fields.model(models)
    system = fields.take("system")
    if system is not None and (raw or not isinstance(system, str)):
        raise BadRequest(f"system is a text, and not for --raw; it is {_shown(system)}")
    messages: list[Message] = [{"role": "system", "content": system}] if system is not None else []
    messages.append({"role": "user", "content": text})
    request = _generation(fields, prompt=text) if raw else _generation(fields, messages=tuple(messages))
    fields.finish()
    return request


class Fields:
    """The fields of a request, each taken once; null is as good as absent."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._left = {name: value for name, value in body.items() if value is not None}

    def take(self, name: str) -> Any:
        """The value of a field, or None."""
        return self._left.pop(name, None)

    def model(self, models: Collection[str]) -> None:
        """Refuse a request for another model."""
        model = self.take("model")
        if model is not None and model not in models:
            raise BadRequest(f"model is {_shown(model)}, this batch is for {' or '.join(sorted(models))}")

    def number(self, name: str, kind: type, low: float, high: float) -> Any:
        """A number in a range, or None."""
        value = self.take(name)
        if value is None:
            return None
        wanted = "a whole number" if kind is int else "a number"
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
        if not good or (kind is int and value != int(value)):
            raise BadRequest(f"{name} is {wanted} from {low:g} to {high:g}, not {_shown(value)}")
        return kind(value)

    def finish(self) -> None:
        """Refuse whatever has not been taken and asks for something."""
        for name in LABELS:
            self.take(name)
        for name, value in self._left.items():
            allowed = NEUTRAL.get(name, ())
            if not any(value == neutral and type(value) is type(neutral) for neutral in allowed):
                known = f" but {' or '.join(json.dumps(neutral) for neutral in allowed)}" if allowed else ""
                raise BadRequest(f"{_shown(name)} cannot be honoured{known}", why=f"it is {_shown(value)}")


def _generation(fields: Fields, **prompt: Any) -> Generation:
    sampling = {ours: fields.number(name, kind, low, high) for name, (ours, kind, low, high) in SAMPLING.items()}
    limits = [fields.number(name, int, 0, MAX_TOKEN) for name in ("max_tokens", "max_completion_tokens")]
    given = [limit for limit in limits if limit is not None]
    return Generation(
        **prompt,
        sampling={name: value for name, value in sampling.items() if value is not None},
        max_tokens=min(given) if given else None,
        stop=_stops(fields.take("stop")),
        schema=_schema(fields.take("response_format")),
    )


def _messages(messages: Any) -> tuple[Message, ...]:
    if not isinstance(messages, list) or not messages:
        raise BadRequest(f"messages is a list of at least one message, not {_shown(messages)}")
    return tuple(_message(message, f"messages[{index}]") for index, message in enumerate(messages))


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise BadRequest(f"{where} is an object, not {_shown(message)}")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRequest(f"{where}.role is one of {', '.join(ROLES)}, not {_shown(role)}")
    for name, value in message.items():
        if name not in ("role", "content") and value not in (None, [], ""):
            raise BadRequest(f"{where}.{_shown(name)} cannot be honoured", why=f"it is {_shown(value)}")
    return {"role": ROLES[role], "content": _content(content, where)}


def _content(content: Any, where: str) -> str:
    """A text, or parts that are all texts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest(f"{where}.content is a text, not {_shown(content)}")
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise BadRequest(f"{where}.content has a part that is no text", why=f"it is {_shown(part)}")
    return "\n".join(part["text"] for part in content)


def _token_or_text(value: Any, where: str) -> str | tuple[int, ...]:
    """A text or a list of tokens; OpenAI also allows a list with just one of these."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], (str, list)):
        value = value[0]
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value and all(type(token) is int and 0 <= token <= MAX_TOKEN for token in value):
        return tuple(value)
    raise BadRequest(f"{where} is a text or a list of tokens, and only one, not {_shown(value)}")


def _embedding(fields: Fields) -> Embedding:
    value, form = fields.take("input"), fields.take("encoding_format")
    if form not in (None, "float", "base64"):
        raise BadRequest(f"encoding_format is float or base64, not {_shown(form)}")
    several = isinstance(value, list) and value and isinstance(value[0], (str, list))
    inputs = value if several else [value]
    return Embedding(tuple(_token_or_text(each, "input") for each in inputs), form == "base64")


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if (
        not isinstance(stops, list)
        or len(stops) > MAX_STOPS
        or not all(isinstance(stop, str) and stop for stop in stops)
    ):
        raise BadRequest(f"stop is a text or a list of up to {MAX_STOPS} texts, not {_shown(value)}")
    return tuple(stops)


def _schema(form: Any) -> str | None:
    """The JSON schema that a response_format stands for."""
    if form is None:
        return None
    kind = form.get("type") if isinstance(form, dict) else None
    extra = set(form) - {"type", "json_schema"} if isinstance(form, dict) else set()
    if extra or kind not in ("text", "json_object", "json_schema"):
        raise BadRequest(f"response_format is of type text, json_object or json_schema, not {_shown(form)}")
    if kind == "text":
        return None
    if kind == "json_object":
        return JSON_OBJECT
    described = form.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        raise BadRequest(f"response_format.json_schema.schema is a JSON schema, not {_shown(schema)}")
    for name in set(described) - {"schema", "name", "strict", "description"}:
        raise BadRequest(f"response_format.json_schema.{_shown(name)} is not known")
    return json.dumps(schema)


def _shown(value: Any) -> str:
    """A value of the request, short enough for a message."""
    if value is None:
        return "absent"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = "too large a value"
    return text if len(text) <= 60 else f"{text[:59]}…"
