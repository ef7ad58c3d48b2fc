"""What clients send, checked: a field is honoured or refused by its name, never dropped.

class Request(Body): ...
request = parsed(Request, b'{"model": "smollm2"}')
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from edgellm.serve.problems import Problem
from edgellm.suggest import did_you_mean

MOST_SHOWN = 100


class Body(BaseModel):
    """The JSON object of a request. Unknown fields are errors; `null` is as good as a missing field."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def given(self, *without: str) -> dict[str, Any]:
        """The fields that were sent and are not null."""
        return self.model_dump(exclude_unset=True, exclude_none=True, exclude=set(without), mode="json", by_alias=True)

    def given_only(self, *names: str) -> dict[str, Any]:
        """Of these fields the ones that were sent and are not null."""
        return self.model_dump(exclude_unset=True, exclude_none=True, include=set(names), mode="json", by_alias=True)


Name = Annotated[str, Field(min_length=1, max_length=400)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]
Stop = Annotated[str, Field(min_length=1, max_length=1000)]
Stops = Annotated[list[Stop], Field(max_length=64)]
# JSON's keys are strings.
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]


def is_json(value: str) -> str:
    """A call's arguments, which must be JSON: chat templates read them."""
    try:
        json.loads(value or "{}")
    except (ValueError, RecursionError):
        raise ValueError("is not JSON; leave out a call that was cut off") from None
    return value or "{}"


Arguments = Annotated[str, Field(max_length=32 << 20), AfterValidator(is_json)]


class Sampling(Body):
    """How tokens are drawn: OpenAI's fields and llama.cpp's, which the worker takes as they are."""

    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Probability | None = None
    top_k: Count | None = None
    min_p: Probability | None = None
    typical_p: Probability | None = None
    top_n_sigma: float | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    repeat_last_n: Count | None = None
    dry_multiplier: Annotated[float, Field(ge=0)] | None = None
    dry_base: Annotated[float, Field(ge=1)] | None = None
    dry_allowed_length: Count | None = None
    dry_penalty_last_n: Count | None = None
    dry_sequence_breakers: Annotated[list[str], Field(min_length=1, max_length=100)] | None = None
    xtc_probability: Probability | None = None
    xtc_threshold: Probability | None = None
    mirostat: Annotated[int, Field(ge=0, le=2)] | None = None
    mirostat_tau: Annotated[float, Field(ge=0)] | None = None
    mirostat_eta: Annotated[float, Field(ge=0)] | None = None
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] | None = None
    stop: Stop | Stops | None = None
    ignore_eos: bool | None = None
    grammar: Annotated[str, Field(max_length=1 << 20)] | None = None
    cache_prompt: bool | None = None

    # Ours.
    loop_guard: bool | None = None
    max_time: Annotated[float, Field(gt=0, le=1e6)] | None = None
    truncate: bool | None = None

    @property
    def wants_truncation(self) -> bool:
        """Whether a prompt that is too long may be shortened."""
        return bool(self.truncate)

    def sampling(self, *without: str) -> dict[str, Any]:
        """The same for the worker: without what only the front knows, seeds within 32 bits."""
        sent = self.given("loop_guard", "max_time", "truncate", *without)
        if "seed" in sent and sent["seed"] != -1:
            sent["seed"] %= 2**32 - 1
        return sent


class Streamed(Sampling):
    """A request whose answer may be a stream."""

    stream: bool | None = None


Kind = TypeVar("Kind", bound=Body)


def parsed(kind: type[Kind], data: bytes) -> Kind:
    """A request from its JSON; `Problem` (400) names the first field that is wrong."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise _problem(kind, error) from None
    except UnicodeDecodeError:
        raise Problem(400, "the body is not UTF-8", code="bad-json") from None


_TYPES = frozenset({"str", "int", "float", "bool"})


def _path(location: tuple[int | str, ...], *, named: bool) -> list[str]:
    """The fields down to one, without the branches of unions that pydantic names as well (by type or class)."""
    *above, last = location or ("",)
    parts = [
        str(part)
        for part in (above if named else location)
        if isinstance(part, int) or (part.isidentifier() and part not in _TYPES and part[0].islower())
    ]
    return [*parts, str(last)] if named else parts


def _problem(kind: type[Body], error: ValidationError) -> Problem:
    # A union reports each of its branches: what went deepest into the request was meant.
    first = max(error.errors(include_url=False, include_context=False), key=lambda each: len(each["loc"]))
    parts = _path(first["loc"], named=first["type"] in ("extra_forbidden", "missing"))
    field = ".".join(parts)[:MOST_SHOWN]
    if first["type"] == "json_invalid":
        return Problem(400, f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}", code="bad-json")
    if first["type"] == "extra_forbidden":
        guess = did_you_mean(parts[-1], list(kind.model_fields)) if len(parts) == 1 else None
        meant = f"; did you mean {guess}?" if guess else ""
        return Problem(400, f"{field} is not supported{meant}", code="unknown-field", field=field)
    if first["type"] == "missing":
        return Problem(400, f"{field} is missing", code="missing-field", field=field)
    said = first["msg"].removeprefix("Value error, ")
    return Problem(400, f"{field}: {said}" if field else said, code="bad-field", field=field or None)
