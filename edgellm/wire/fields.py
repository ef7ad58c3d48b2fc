"""Types of fields that several requests share, with their bounds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from edgellm.models.sampling_fields import no_bool

MAX_INT = 2**31 - 1
MAX_STOPS = 64
# Fields of requests that label them, or speak of prices and caches: they do not change an answer.
LABELS = (
    "client_metadata", "diagnostics", "max_tool_calls", "metadata", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "request_id", "safety_identifier", "user", "user_profile_id", "workspace_id",
)  # fmt: skip

Name = Annotated[str, Field(min_length=1, max_length=400)]
Text = Annotated[str, Field(max_length=32 << 20)]
Count = Annotated[int, no_bool, Field(ge=0, le=MAX_INT)]


def _without_nulls(value: Any) -> Any:
    return {name: each for name, each in value.items() if each is not None} if isinstance(value, dict) else value


# Of an object with names of the client's own: null is as good as a missing entry.
without_nulls = BeforeValidator(_without_nulls)
MaxTokens = Annotated[int, no_bool, Field(ge=-1, le=MAX_INT)]
# Strict: true is no token.
Tokens = Annotated[list[Annotated[int, Strict(), Field(ge=0, le=MAX_INT)]], Field(min_length=1)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
    without_nulls,
]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Stops = Annotated[list[Stop], Field(max_length=MAX_STOPS)]
# JSON's keys are strings.
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]


# "none" switches thinking off.
Level = Literal["none", "minimal", "low", "medium", "high"]


def _known_level(value: Any) -> Any:
    return "high" if value in ("xhigh", "max") else value


# No template knows more than "high", so the levels above it mean as much.
known_level = BeforeValidator(_known_level)
# How long to think.
Effort = Annotated[Level, known_level]


_MEDIA = ("document", "file", "image", "image_url", "input_audio", "input_file", "input_image", "video_url")


def _only_text(part: Any) -> Any:
    if isinstance(part, dict) and part.get("type") in _MEDIA:
        raise ValueError(f"{part['type']} cannot be read: the models here read text only")
    return part


# Of a part of a message.
only_text = BeforeValidator(_only_text)


def _empty_is_none(value: Any) -> Any:
    return None if value == "" else value


def _false_is_none(value: Any) -> Any:
    return None if value is False else value


# An empty text asks for nothing, and neither does false where a number is expected.
empty_is_none = BeforeValidator(_empty_is_none)
false_is_none = BeforeValidator(_false_is_none)


# Keywords of a schema whose values are data, and those whose values are schemas by names of the client's.
_DATA = frozenset({"const", "default", "enum", "example", "examples"})
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "definitions", "$defs"})


def _null_is_missing(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_null_is_missing(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    whole: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _DATA and (value is not None or name in ("const", "default")):
            whole[name] = value
        elif name in _NAMED and isinstance(value, dict):
            whole[name] = {key: _null_is_missing(each) for key, each in value.items() if each is not None}
        elif value is not None:
            whole[name] = _null_is_missing(value)
    return whole


def _clean(schema: dict[str, Any] | bool) -> dict[str, Any] | bool:
    try:
        return schema if isinstance(schema, bool) else dict(_null_is_missing(schema))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


# A JSON schema; true permits anything. SDKs write out the keywords that it does not have, `"enum": null`.
Schema = Annotated[dict[str, Any] | Annotated[bool, Strict()], AfterValidator(_clean)]


def is_json(value: str) -> str:
    """The arguments of a call, which must be JSON because chat templates parse them."""
    try:
        json.loads(value or "{}")
    except (ValueError, RecursionError):
        raise ValueError("is not JSON; leave out a call that was cut off") from None
    return value or "{}"


Arguments = Annotated[str, Field(max_length=32 << 20), AfterValidator(is_json)]


def joined(parts: Iterable[str]) -> str:
    """The text of a message that came in parts: one below the other, so that a document ends before a question."""
    return "\n".join(parts)
