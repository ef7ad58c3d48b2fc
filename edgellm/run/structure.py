"""The form an answer must have: a grammar that constrains it, and a JSON schema that it is held against afterwards.

    structure = from_options("person.schema.json", None, installed.bindings)
    sampling = structure.constrain(sampling)
    structure.check(answer)

A grammar cannot say all that a schema says (ranges of numbers, for one), and an answer may be cut off by a limit.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from jsonschema import exceptions, validators
from referencing import Registry
from referencing.exceptions import Unresolvable

from edgellm.engine.base import Sampling
from edgellm.engine.grammar import MAX_CHARACTERS, check_grammar, is_harmless, schema_to_gbnf
from edgellm.errors import AnswerMismatch, FileAccessError, UsageError

JSON_OBJECT = '{"type": "object"}'


@dataclass(frozen=True, slots=True)
class Structure:
    """A grammar, and the JSON text of the schema that it was made from, if it was."""

    grammar: str
    schema: str | None = None
    is_harmless: bool = False

    def constrain(self, sampling: Sampling) -> Sampling:
        """The same sampling among what the grammar permits."""
        return replace(sampling, grammar=self.grammar, grammar_is_harmless=self.is_harmless)

    def check(self, text: str) -> None:
        """Raise `AnswerMismatch` unless the answer is what was asked for."""
        if self.schema is None:
            return
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise AnswerMismatch(
                "the answer is not whole JSON", why=str(error), hint="a larger --max-tokens"
            ) from error
        try:
            wrong = exceptions.best_match(_validator(self.schema).iter_errors(value))
        except (RecursionError, Unresolvable, re.error) as failure:
            raise AnswerMismatch("the answer cannot be held against the schema", why=str(failure)) from failure
        if wrong is not None:
            where = f" at {wrong.json_path}" if wrong.path else ""
            raise AnswerMismatch("the answer does not match the schema", why=f"{wrong.message[:200]}{where}")


def from_options(form: str | None, grammar: Path | None, bindings: Path) -> Structure | None:
    """What `--format` (`json`, or the file of a schema) and `--grammar` ask for.

    Raises:
        UsageError: both are given, or the schema or grammar is wrong.
        FileAccessError: a file cannot be read.
    """
    if form is not None and grammar is not None:
        raise UsageError("--format and --grammar exclude each other", why="a schema is turned into a grammar")
    if grammar is not None:
        text = _read(grammar)
        check_grammar(text)
        return Structure(text)
    if form is None:
        return None
    return from_schema(JSON_OBJECT if form == "json" else _read(Path(form)), bindings)


@lru_cache(maxsize=64)
def from_schema(text: str, bindings: Path) -> Structure:
    """The structure that a JSON schema, given as text, describes.

    Raises:
        UsageError: it is no JSON, no schema, or there is no grammar for it.
    """
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError("the schema is not JSON", why=str(error)) from error
    grammar = schema_to_gbnf(schema, bindings)
    try:
        _validator(text).check_schema(schema)
    except exceptions.SchemaError as error:
        raise UsageError("this is not a JSON schema", why=f"{error.message[:200]} at {error.json_path}") from error
    except RecursionError as error:
        raise UsageError("the schema is nested too deep") from error
    return Structure(grammar, text, is_harmless(schema))


@lru_cache(maxsize=64)
def _validator(text: str) -> Any:
    schema = json.loads(text)
    # The empty registry: references to other places are never followed.
    return validators.validator_for(schema, default=validators.Draft202012Validator)(schema, registry=Registry())


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(4 * MAX_CHARACTERS + 1)
    except OSError as error:
        raise FileAccessError(f"cannot read {path}", why=str(error.strerror), path=str(path)) from error
    if len(data) > 4 * MAX_CHARACTERS:
        raise UsageError(
            f"{path} is too large for a schema or a grammar", why=f"the limit is {MAX_CHARACTERS:,} characters"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8", why=str(error)) from error
