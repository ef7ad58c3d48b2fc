"""The JSON object of a request, checked: a field is honoured, asks for nothing, or is refused by its name.

class CountRequest(Body): ...
request = parse(CountRequest, b'{"model": "smollm2"}')
"""

from __future__ import annotations

import math
import re
from codecs import BOM_UTF8
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError, model_validator
from pydantic_core import from_json

from edgellm.errors import BadRequest
from edgellm.models.sampling_fields import StrictModel
from edgellm.suggest import did_you_mean
from edgellm.text import encoding_of
from edgellm.wire.neutral import is_neutral, reason

MAX_PATH = 100


class FieldError(BadRequest):
    """A field of a request is wrong; `field` is its path, `messages.0.content` for example, or None."""

    code = "bad-field"

    def __init__(self, what: str, *, field: str | None = None) -> None:
        super().__init__(what, field=field)
        self.field = field


class UnknownField(FieldError):
    """A request has a field that edgellm does not know."""

    code = "unknown-field"


class MissingField(FieldError):
    """A request lacks a field that it needs."""

    code = "missing-field"


class UnsupportedField(FieldError):
    """A field is right as such, and cannot be honoured here."""

    code = "unsupported-field"


class MalformedBody(FieldError):
    """A request is not JSON, or not UTF-8."""

    code = "bad-json"


class Body(StrictModel):
    """The JSON object of a request, or a part of one. `null` is as good as a missing field.

    A field that is not known is an error, unless it asks for nothing (`neutral.py`) or has no effect on an answer: the
    names in `ignored`, with any value.
    """

    ignored: ClassVar[Collection[str]] = ()

    @model_validator(mode="before")
    @classmethod
    def _with_effect(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known = cls._names()
        return {
            name: each
            for name, each in value.items()
            if each is not None and (name in known or not (is_neutral(name, each) or cls.ignores(name, value)))
        }

    @classmethod
    def ignores(cls, name: str, body: Mapping[str, Any]) -> bool:
        """Whether an unknown field of `body` has no effect, whatever its value."""
        return name in cls.ignored

    @classmethod
    @cache
    def _names(cls) -> frozenset[str]:
        return frozenset(field.alias or name for name, field in cls.model_fields.items())

    def given(self, *without: str) -> dict[str, Any]:
        """The fields that were sent and are not null."""
        return self.model_dump(exclude_unset=True, exclude_none=True, exclude=set(without), mode="json", by_alias=True)

    def given_only(self, *names: str) -> dict[str, Any]:
        """Of these fields those that were sent and are not null."""
        return self.model_dump(exclude_unset=True, exclude_none=True, include=set(names), mode="json", by_alias=True)


class AnswerPart(Body):
    """A part of an earlier answer, which a client sends back as its SDK has it.

    The fields that edgellm does not know are remarks of the server or of the SDK: ids, annotations, prices. None of
    them is in a prompt. Those that carry a part of the answer itself are refused.
    """

    carrying: ClassVar[Collection[str]] = ("audio", "function_call", "images", "tool_call")

    @classmethod
    def ignores(cls, name: str, body: Mapping[str, Any]) -> bool:
        """Whether an unknown field of `body` has no effect, whatever its value."""
        return name not in cls.carrying


class MessageBody(AnswerPart):
    """A message. An earlier answer comes back with whatever its SDK adds to it; the client's own messages do not."""

    ignored = ("annotations", "cache_control", "created_at", "id", "metadata", "provider_specific_fields", "timestamp")

    @classmethod
    def ignores(cls, name: str, body: Mapping[str, Any]) -> bool:
        """Whether an unknown field of `body` has no effect, whatever its value."""
        return name in cls.ignored or (body.get("role") == "assistant" and super().ignores(name, body))


RequestBody = TypeVar("RequestBody", bound=Body)


def parse(kind: type[RequestBody], data: bytes | dict[str, Any]) -> RequestBody:
    """A request from its JSON, as bytes or already decoded.

    Raises:
        FieldError: names the first field that is wrong.
    """
    try:
        if isinstance(data, dict):
            return kind.model_validate(data)
        if encoding_of(data[:4]) not in ("utf-8", "utf-8-sig"):
            raise MalformedBody("the body is not UTF-8")
        data = data.removeprefix(BOM_UTF8)
        request = kind.model_validate_json(data)
        if _SUSPECT.search(data) and not _is_finite(from_json(data)):
            raise MalformedBody("the body is not JSON: it has a number that is not finite")
        return request
    except ValidationError as error:
        raise _field_error(kind, error, data) from None
    except UnicodeDecodeError:
        raise MalformedBody("the body is not UTF-8") from None


# How NaN and infinity may stand in JSON, where the fields of a schema or a tool are not checked one by one.
_SUSPECT = re.compile(rb"NaN|Infinity|[eE]\+?\d{3}|\d{300}")


def _is_finite(value: Any) -> bool:
    """Whether no number inside is NaN or infinite."""
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def refuse_others(request: Body, honoured: Collection[str], where: str) -> None:
    """Refuse the fields of a request that cannot be honoured in one place although the protocol has them.

    Args:
        honoured: names that are fine with any value.
        where: goes on from "NAME cannot be honoured", for example "in a batch".

    Raises:
        UnsupportedField: names the first one.
    """
    for name, value in request.given().items():
        if name not in honoured and not is_neutral(name, value):
            raise UnsupportedField(f"{name} cannot be honoured {where}", field=name)


def _path(location: Sequence[int | str], data: Any) -> list[str]:
    """The fields down to one, without the branches of unions, which pydantic names by class, type or tag."""
    if not location:
        return []
    first, rest = location[0], location[1:]
    without = _path(rest, data)
    is_there = first in (data if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ())
    # A tag may be the name of a field, too: "text" of {"type": "text", "text": "a", "wrong": 1}.
    return max(without, [str(first), *_path(rest, data[first])], key=len) if is_there else without


def _field_error(kind: type[Body], error: ValidationError, data: bytes | dict[str, Any]) -> FieldError:
    # A union reports each of its branches. The client meant the one that got deepest into the request, or else the one
    # whose type is right.
    errors = error.errors(include_url=False)
    first = max(errors, key=lambda each: (len(each["loc"]), not each["type"].endswith("_type")))
    if first["type"] == "json_invalid":
        return MalformedBody(f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}")
    body = from_json(data) if isinstance(data, bytes) else data
    location = first["loc"]
    parts = [*_path(location[:-1], body), str(location[-1])] if first["type"] == "missing" else _path(location, body)
    field = ".".join(parts)[:MAX_PATH]
    if first["type"] == "extra_forbidden":
        if why := reason(parts[-1]):
            return UnsupportedField(f"{field} is not supported: {why}", field=field)
        guess = did_you_mean(parts[-1], list(kind.model_fields)) if len(parts) == 1 else None
        return UnknownField(f"{field} is not supported" + (f"; did you mean {guess}?" if guess else ""), field=field)
    if first["type"] == "union_tag_not_found":
        field = f"{field}.type"
    if first["type"] in ("missing", "union_tag_not_found"):
        return MissingField(f"{field} is missing", field=field)
    if first["type"] == "union_tag_invalid":
        tag, known = first["ctx"]["tag"], first["ctx"]["expected_tags"].replace("'", "")
        field = f"{field}.type"
        return UnsupportedField(f"{field}: {tag[:MAX_PATH]} is not supported; known are {known}", field=field)
    said = first["msg"].removeprefix("Value error, ")
    return FieldError(f"{field}: {said}" if field else said, field=field or None)
