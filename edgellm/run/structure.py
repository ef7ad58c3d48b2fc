"""The form an answer must have: a grammar that constrains it, and a JSON schema that the whole answer is checked by.

    structure = from_options("person.schema.json", None)
    sampling = structure.constrain(sampling)
    structure.check(answer)

The check is needed: a grammar cannot express all of a schema, and a limit may cut an answer off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgellm.engine.grammar.bounds import MAX_CHARACTERS, check_grammar
from edgellm.engine.grammar.gbnf import forms_to_gbnf, is_harmless
from edgellm.engine.grammar.schemas import reduced
from edgellm.engine.grammar.validation import SchemaChecker, loads
from edgellm.engine.sampling import Sampling
from edgellm.errors import AnswerMismatch, UsageError
from edgellm.run.draft_hint import draft_hint
from edgellm.text import read_text

JSON_OBJECT = '{"type": "object"}'
# Of a schema or a grammar in a file: a character has at most four bytes.
MAX_BYTES = 4 * MAX_CHARACTERS


@dataclass(frozen=True, slots=True)
class Structure:
    """A grammar, and the JSON text of the schema that it was made from; None for a grammar that the user wrote."""

    grammar: str
    schema: str | None = None
    is_harmless: bool = False

    def constrain(self, sampling: Sampling) -> Sampling:
        """The same sampling, limited to what the grammar permits."""
        return replace(sampling, grammar=self.grammar, grammar_is_harmless=self.is_harmless)

    @property
    def hint(self) -> str:
        """What an answer may look like, for its drafts."""
        return draft_hint(self.schema)

    def check(self, text: str) -> None:
        """Raise `AnswerMismatch` unless the answer is JSON that matches the schema."""
        if self.schema is not None:
            check_answer(text, _checker(self.schema))


def choose_structure(schema: Mapping[str, Any] | bool | str | None, grammar: str | None) -> Structure | None:
    """The form that a JSON schema (a mapping, its text, or `json` for any object) or a GBNF grammar describes.

    Raises:
        UsageError: both are given, or the schema or grammar is wrong.
    """
    if schema is not None and grammar is not None:
        raise UsageError("a schema and a grammar exclude each other", why="a schema is turned into a grammar")
    if grammar is not None:
        check_grammar(grammar)
        return Structure(grammar)
    if schema is None:
        return None
    text = schema if isinstance(schema, str) else json.dumps(schema if isinstance(schema, bool) else dict(schema))
    return from_schema(JSON_OBJECT if text == "json" else text)


def from_options(form: str | None, grammar: Path | None) -> Structure | None:
    """What `--format` (`json`, or the file of a schema) and `--grammar` ask for.

    Raises:
        UsageError: both are given, or the schema or grammar is wrong.
        FileAccessError: a file cannot be read.
    """
    if form is not None and grammar is not None:
        raise UsageError("--format and --grammar exclude each other", why="a schema is turned into a grammar")
    schema = form if form in (None, "json") else read_text(Path(form), limit=MAX_BYTES)
    return choose_structure(schema, None if grammar is None else read_text(grammar, limit=MAX_BYTES))


@lru_cache(maxsize=64)
def from_schema(text: str) -> Structure:
    """The structure that a JSON schema, given as text, describes.

    Raises:
        UsageError: it is not JSON, not a schema, or no grammar can express it.
    """
    checker = _checker(text)
    forms = reduced(json.loads(text), checker)
    return Structure(forms_to_gbnf(forms), text, is_harmless(forms))


@lru_cache(maxsize=64)
def _checker(text: str) -> SchemaChecker:
    try:
        return SchemaChecker(loads(text))
    except (ValueError, RecursionError) as error:
        raise UsageError("the schema is not JSON", why=str(error)) from error


def check_answer(text: str, checker: SchemaChecker, what: str = "the answer") -> None:
    """Raise `AnswerMismatch` unless the text is JSON that matches a schema."""
    try:
        value = loads(text)
    except (ValueError, RecursionError) as error:
        raise AnswerMismatch(f"{what} is not whole JSON", why=str(error), hint="a larger --max-tokens") from error
    if (fault := checker.fault(value)) is not None:
        raise AnswerMismatch(f"{what} does not match the schema", why=fault)
