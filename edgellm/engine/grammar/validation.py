"""Checks values against JSON schemas, in bounded time and without the network.

    checker = SchemaChecker({"type": "object", "required": ["city"]})
    checker.fault({})  ->  "'city' is a required property"

Schemas and their patterns are untrusted: references to other documents are never followed, and patterns that backtrack
without end run into a time limit. Patterns are read as ECMA's, numbers are divided exactly, and the formats below are
checked; JSON Schema leaves other formats to the reader.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from fractions import Fraction
from functools import lru_cache
from math import isfinite
from typing import Any

import regex
from jsonschema import FormatChecker, exceptions, validators
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, specification_with

from edgellm.errors import UsageError

# The most seconds that one check may take.
CHECK_SECONDS = 2.0
NEWEST = validators.Draft202012Validator
# It is not annotated.
EXTEND: Any = validators.extend
# A schema without `$schema` is the newest dialect, with the keywords that older ones wrote in another way.
OLDER = (validators.Draft7Validator, validators.Draft4Validator)
SHAPES = {
    "duration": r"P(?!$)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?!$)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?",
    "hostname": r"(?!.{254})[A-Za-z0-9](-*[A-Za-z0-9]){0,62}(\.[A-Za-z0-9](-*[A-Za-z0-9]){0,62})*",
    "uri": r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]*",
    "time": r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)",
}
FORMATS = FormatChecker(formats=("date", "email", "ipv4", "ipv6", "uuid"))
# Of a schema itself only its patterns are checked.
PATTERNS = FormatChecker(formats=())
_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))


class SchemaTooSlow(Exception):
    """A check takes too long."""


class SchemaChecker:
    """A JSON schema and all that it refers to.

    Raises:
        UsageError: it is not a JSON schema, or one that cannot be checked in bounded time.
    """

    def __init__(self, schema: Any) -> None:
        dialect = _dialect(schema)
        if _has_keywords(schema, "unevaluatedProperties", "patternProperties"):
            why = "unevaluatedProperties together with patternProperties may take without end"
            raise UsageError("this JSON schema cannot be checked", why=why)
        specification = specification_with(dialect.META_SCHEMA["$schema"], default=DRAFT202012)
        resource = Resource.from_contents(schema, default_specification=specification)
        registry = Registry().with_resource(resource.id() or "", resource)
        self._resolver = registry.resolver(resource.id() or "")
        # The registry is empty but for the schema: references to other places are never followed.
        self._validator = _bounded(dialect)(schema, registry=registry, format_checker=FORMATS)

    def fault(self, value: Any) -> str | None:
        """What is wrong with a value, and where; None if it matches."""
        try:
            with _limited():
                error = exceptions.best_match(self._validator.iter_errors(value))
        except SchemaTooSlow:
            return f"it cannot be checked within {CHECK_SECONDS:g} seconds"
        except (RecursionError, Unresolvable) as failure:
            return f"it cannot be checked: {str(failure) or 'the schema refers to itself without end'}"[:300]
        if error is None:
            return None
        where = f" at {error.json_path}" if error.path else ""
        return f"{error.message[:200]}{where}"

    def permits(self, part: Any, value: Any) -> bool:
        """Whether a value matches a part of the schema; what cannot be decided does not."""
        try:
            with _limited():
                return bool(self._validator.evolve(schema=part).is_valid(value))
        except (SchemaTooSlow, RecursionError, Unresolvable):
            return False

    def target(self, reference: str) -> Any:
        """The part of the schema that a `$ref` names.

        Raises:
            UsageError: there is none; other documents are not fetched.
        """
        try:
            return self._resolver.lookup(reference).contents
        except (Unresolvable, ValueError, TypeError, LookupError) as error:
            is_local = reference.startswith("#")
            why = "there is nothing in the schema" if is_local else "schemas are never fetched from other places"
            raise UsageError(f"the reference {reference[:200]!r} leads nowhere", why=why) from error


def loads(text: str) -> Any:
    """The value of a JSON text; ValueError for NaN and Infinity too, which are not JSON."""
    return json.loads(text, parse_constant=_refuse_constant)


def search(pattern: str, text: str) -> bool:
    """Whether an ECMA pattern matches anywhere in a text; raises as `find` does."""
    return find(pattern, text) is not None


def find(pattern: str, text: str) -> str | None:
    """The first piece of a text that an ECMA pattern matches; None without one.

    Raises:
        UsageError: the pattern is not one that can be read.
        SchemaTooSlow: it takes too long.
    """
    remaining = min(_deadline.get() - time.monotonic(), CHECK_SECONDS)
    try:
        if remaining <= 0:
            raise TimeoutError
        found = _compiled(pattern).search(text, timeout=remaining)
    except TimeoutError:
        raise SchemaTooSlow from None
    return None if found is None else str(found[0])


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    try:
        return regex.compile(_as_python(pattern))
    except (regex.error, RecursionError, OverflowError) as error:
        raise UsageError(f"the pattern {pattern[:100]} is invalid", why=str(error)) from error


def _as_python(pattern: str) -> str:
    r"""An ECMA pattern in Python's syntax: `$` is the very end, and \d and \w are ASCII."""
    ends, in_set, written = {"$": r"\Z"}, False, []
    for part in re.findall(r"\\u\{[0-9A-Fa-f]{1,6}\}|\\.|.", pattern, re.DOTALL):
        if part.startswith("\\u{"):
            part = regex.escape(chr(min(int(part[3:-1], 16), 0x10FFFF)))
        elif part in (r"\d", r"\w"):
            members = "0-9" if part == r"\d" else "A-Za-z0-9_"
            part = members if in_set else f"[{members}]"
        elif part in (r"\D", r"\W") and not in_set:
            part = "[^0-9]" if part == r"\D" else "[^A-Za-z0-9_]"
        elif part in "[&|~" and in_set:
            part = f"\\{part}"
        elif part in ("[", "]"):
            in_set = part == "["
        elif not in_set:
            part = ends.get(part, part)
        written.append(part)
    return "".join(written)


def _dialect(schema: Any) -> Any:
    """The validator of a schema's dialect; UsageError if it is not a schema in any."""
    named = schema.get("$schema") if isinstance(schema, dict) else None
    known = _known(named) if isinstance(named, str) else None
    if known is not None:
        fault = _schema_fault(known, schema)
        if fault is None:
            return known
    else:
        fault = _schema_fault(NEWEST, schema)
        if fault is None:
            return _with_keywords_of(validators.Draft7Validator, "dependencies")
        for older in OLDER:
            if _schema_fault(older, schema) is None:
                return _with_keywords_of(older)
    raise UsageError("this is not a JSON schema", why=f"{fault.message[:200]} at {fault.json_path}")


def _known(url: str) -> Any:
    """The validator of the dialect that `$schema` names, None if there is none."""
    found = validators.validator_for({"$schema": url}, default=NEWEST)
    return found if found is not NEWEST or url.rstrip("#") == NEWEST.META_SCHEMA["$schema"] else None


def _schema_fault(dialect: Any, schema: Any) -> Any:
    try:
        dialect.check_schema(schema, format_checker=PATTERNS)
    except exceptions.SchemaError as error:
        return error
    return None


@lru_cache(maxsize=16)
def _with_keywords_of(older: Any, *names: str) -> Any:
    """The newest dialect, where these keywords (by default all that an older one knows) mean what they meant there."""
    keywords = {name: older.VALIDATORS[name] for name in names or older.VALIDATORS}
    if older is validators.Draft4Validator:  # there `minimum` and `maximum` read them
        keywords |= {"exclusiveMinimum": _nothing, "exclusiveMaximum": _nothing}
    return EXTEND(NEWEST, keywords)


def _nothing(*_: Any) -> Iterator[Any]:
    return iter(())


@lru_cache(maxsize=16)
def _bounded(dialect: Any) -> Any:
    """The validator with keywords that keep to the time limit."""
    keywords = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "multipleOf": _multiple_of,
        **{name: _timed(dialect, name) for name in ("$ref", "$dynamicRef", "$recursiveRef")},
    }
    return EXTEND(dialect, {name: each for name, each in keywords.items() if name in dialect.VALIDATORS})


def _pattern(validator: Any, pattern: str, value: Any, _: Any) -> Iterator[Any]:
    if validator.is_type(value, "string") and not search(pattern, value):
        yield exceptions.ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: dict[str, Any], value: Any, _: Any) -> Iterator[Any]:
    if validator.is_type(value, "object"):
        for pattern, part in patterns.items():
            for name, each in value.items():
                if search(pattern, name):
                    yield from validator.descend(each, part, path=name, schema_path=pattern)


def _multiple_of(validator: Any, divisor: Any, value: Any, _: Any) -> Iterator[Any]:
    """Exact, because binary fractions make 0.29 no multiple of 0.01."""
    if validator.is_type(value, "number") and not _divides(divisor, value):
        yield exceptions.ValidationError(f"{value!r} is not a multiple of {divisor}")


def _divides(divisor: float, value: float) -> bool:
    return (isinstance(value, int) or isfinite(value)) and Fraction(repr(value)) % Fraction(repr(divisor)) == 0


def _timed(dialect: Any, keyword: str) -> Callable[..., Any]:
    original = dialect.VALIDATORS.get(keyword)

    def check(validator: Any, part: Any, value: Any, schema: Any) -> Any:
        if time.monotonic() > _deadline.get():
            raise SchemaTooSlow
        return original(validator, part, value, schema)

    return check


def _additional_properties(validator: Any, part: Any, value: Any, schema: Any) -> Iterator[Any]:
    if not validator.is_type(value, "object"):
        return
    patterns = schema.get("patternProperties", {})
    for name, each in value.items():
        if name in schema.get("properties", {}) or any(search(pattern, name) for pattern in patterns):
            continue
        if part is False:
            yield exceptions.ValidationError(f"the property {name!r} is not among those of the schema")
        elif part is not True:
            yield from validator.descend(each, part, path=name)


def _has_keywords(schema: Any, *names: str) -> bool:
    """Whether all of these keywords are somewhere in a schema."""
    text = json.dumps(schema)
    return all(f'"{name}": ' in text for name in names)


@contextmanager
def _limited() -> Iterator[None]:
    token = _deadline.set(min(_deadline.get(), time.monotonic() + CHECK_SECONDS))
    try:
        yield
    finally:
        _deadline.reset(token)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _shape(format_name: str) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, str) or re.fullmatch(SHAPES[format_name], value, re.ASCII) is not None


for _name in SHAPES:
    FORMATS.checks(_name)(_shape(_name))


@PATTERNS.checks("regex", raises=UsageError)
def _is_pattern(value: object) -> bool:
    return not isinstance(value, str) or _compiled(value) is not None


@FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    date, separator, day_time = value[:10], value[10:11], value[11:]
    datetime.strptime(date, "%Y-%m-%d")
    return separator in "Tt " and re.fullmatch(SHAPES["time"], day_time, re.ASCII) is not None
