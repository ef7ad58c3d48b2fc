"""The schemas of a request, made into what llama-server can honour.

    formed = constrained(body, by_grammar=True)
    formed.body["grammar"], formed.trials

The schema of the answer becomes the grammar that `run` and `batch` have too. A model that thinks before it answers, or
that may call tools, needs llama-server's own grammar around it: there the schema goes on in the form that llama-server
reads right, as those of tools always do. A tool whose schema cannot be read stays, with any arguments, and a warning.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from edgellm.engine.grammar.gbnf import forms_to_gbnf, is_harmless, schema_to_gbnf
from edgellm.engine.grammar.llama_schema import for_llama_server, is_plain
from edgellm.engine.grammar.schemas import Forms, permits_all, reduced
from edgellm.engine.grammar.validation import SchemaChecker
from edgellm.errors import UsageError
from edgellm.run.draft_hint import draft_hint
from edgellm.serve.http.problems import Problem

# Arguments are an object, whatever else they are.
ANY_ARGUMENTS = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Trial:
    """A grammar that may never finish a step; `tool` is the index of the tool that it is for."""

    grammar: str
    tool: int | None = None


@dataclass(frozen=True, slots=True)
class Constrained:
    """The body for llama-server, the grammars to try before it is sent, and what the client should know."""

    body: dict[str, Any]
    trials: list[Trial] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def without_arguments(self, tool: int, why: str) -> None:
        """Let a tool have any arguments, because its schema cannot be honoured."""
        self.body["tools"][tool] = _with_parameters(self.body["tools"][tool], _open(_parameters(self.body, tool)))
        name = _function(self.body, tool).get("name", "")
        self.warnings.append(f"tools.{tool} ({name}): {why}; its arguments are not constrained")


def constrained(body: Mapping[str, Any], *, by_grammar: bool) -> Constrained:
    """A request's schemas for llama-server.

    Args:
        by_grammar: the whole answer follows the schema, and a grammar of ours can constrain it.

    Raises:
        Problem: the schema of the answer cannot be honoured.
    """
    formed = Constrained(dict(body))
    if grammar := body.get("grammar"):
        formed.trials.append(Trial(grammar))
    if (asked := answer_schema(body)) is not None:
        field_name, schema = asked
        try:
            _constrain_answer(formed, schema, by_grammar=by_grammar)
        except UsageError as error:
            raise Problem(400, f"{field_name}: {said(error)}", code="bad-field", field=field_name) from None
    if body.get("tools"):
        formed.body["tools"] = list(body["tools"])
        for tool in range(len(body["tools"])):
            _constrain_tool(formed, tool)
    return formed


def answer_schema(body: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The field with the JSON schema of the answer, and the schema; None if there is none."""
    if body.get("json_schema") is not None:
        return "json_schema", body["json_schema"]
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        return "response_format", form["json_schema"]["schema"]
    if form.get("type") == "json_object":
        schema = form.get("schema")
        return "response_format", ANY_ARGUMENTS if schema is None else schema
    return None


def checker_of(schema: Any) -> SchemaChecker:
    """The checker of a schema, which is made once."""
    return _read(_text(schema))[0]


def said(error: UsageError) -> str:
    """What is wrong with a schema, in one line."""
    return f"{error.what}{f', {error.why}' if error.why else ''}"


def _text(schema: Any) -> str:
    try:
        return json.dumps(schema)
    except RecursionError:
        raise UsageError("there is no grammar for this JSON schema", why="it is nested too deeply") from None


@lru_cache(maxsize=256)
def _read(text: str) -> tuple[SchemaChecker, Forms]:
    schema = json.loads(text)
    try:
        checker = SchemaChecker(schema)
    except RecursionError:
        raise UsageError("there is no grammar for this JSON schema", why="it is nested too deeply") from None
    return checker, reduced(schema, checker)


def _constrain_answer(formed: Constrained, schema: Any, *, by_grammar: bool) -> None:
    _, forms = _read(_text(schema))
    grammar = forms_to_gbnf(forms)
    formed.trials.extend(_trials(forms, grammar))
    for name in ("json_schema", "response_format"):
        formed.body.pop(name, None)
    if hint := draft_hint(_text(schema)):
        formed.body["draft_hint"] = hint
    if by_grammar:
        formed.body["grammar"] = grammar
    else:
        written = for_llama_server(forms, rewrites_patterns=True)
        formed.body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": written}}


def _constrain_tool(formed: Constrained, tool: int) -> None:
    schema = _parameters(formed.body, tool)
    if schema is None:
        return
    try:
        _, forms = _read(_text(schema))
        trials = _trials(forms, forms_to_gbnf(forms))
    except UsageError as error:
        formed.without_arguments(tool, said(error))
        return
    formed.trials.extend(replace(each, tool=tool) for each in trials)
    if permits_all(forms.root):
        written: dict[str, Any] = ANY_ARGUMENTS
    elif is_plain(schema, schema):
        return
    else:
        written = for_llama_server(forms, rewrites_patterns=False)
    formed.body["tools"][tool] = _with_parameters(formed.body["tools"][tool], written)


def _function(body: Mapping[str, Any], tool: int) -> Mapping[str, Any]:
    function: Mapping[str, Any] = body["tools"][tool].get("function") or {}
    return function


def _parameters(body: Mapping[str, Any], tool: int) -> Any:
    return _function(body, tool).get("parameters")


def _with_parameters(tool: Mapping[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return {**tool, "function": {**tool["function"], "parameters": schema}}


def _open(schema: Any) -> dict[str, Any]:
    """Any object, with the names of the properties for the model to read."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or not properties:
        return ANY_ARGUMENTS
    notes = {name: _description(each) for name, each in properties.items()}
    return {"type": "object", "properties": notes, "additionalProperties": True}


def _description(schema: Any) -> dict[str, str]:
    text = schema.get("description") if isinstance(schema, dict) else None
    return {"description": text} if isinstance(text, str) else {}


def _trials(forms: Forms, grammar: str) -> Iterator[Trial]:
    """The grammar, then those of the patterns inside it, which the first steps through it miss."""
    if not is_harmless(forms):
        yield Trial(grammar)
        for pattern in dict.fromkeys(_patterns([forms.root, *forms.parts.values()])):
            yield Trial(schema_to_gbnf({"type": "string", "pattern": pattern}))


def _patterns(form: Any) -> Iterator[str]:
    if isinstance(form, list):
        for item in form:
            yield from _patterns(item)
    elif isinstance(form, dict):
        if isinstance(pattern := form.get("pattern"), str):
            yield pattern
        for value in form.values():
            yield from _patterns(value)
