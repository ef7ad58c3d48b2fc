"""Writes the forms of a schema as a JSON schema that llama-server's own conversion understands.

    for_llama_server(reduced({"allOf": [{"enum": [1, 2]}, {"type": "integer"}]}), rewrites_patterns=True)

llama-server builds the grammar of a tool call, and of an answer with thoughts before it, itself. Its conversion knows
few keywords, misreads others, and refuses a whole request for one schema that it cannot read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import ceil, floor
from typing import Any

from edgellm.engine.grammar.patterns import PatternUnsupported, rewrite
from edgellm.engine.grammar.schemas import COMBINING, Forms, form_notes, permits_all
from edgellm.errors import UsageError

# Longer repetitions end in an error, or have no end.
MAX_COUNT = 1_000
MAX_INTEGER = 2**53
ANYTHING = [{"type": name} for name in ("object", "array", "string", "number", "boolean", "null")]
COUNTS = ("minLength", "maxLength", "minItems", "maxItems")
# Keywords that the conversion does not know, or misreads.
FOREIGN = frozenset(COMBINING - {"$ref", "anyOf", "oneOf"}) | {
    "patternProperties", "propertyNames", "prefixItems", "additionalItems", "contains", "minProperties",
    "maxProperties", "exclusiveMinimum", "exclusiveMaximum", "$anchor", "$id", "unevaluatedProperties",
}  # fmt: skip
# What stands beside these is lost.
ALONE = frozenset({"$ref", "anyOf", "oneOf"})
BESIDE = frozenset({"$defs", "definitions", "$schema", "title", "description", "default", "examples"})


def for_llama_server(forms: Forms, *, rewrites_patterns: bool) -> dict[str, Any]:
    """A schema of the same texts, as far as the conversion can express them.

    Args:
        rewrites_patterns: patterns become what the conversion can read; otherwise they stay readable for the model.
    """

    def written(form: dict[str, Any] | bool) -> dict[str, Any]:
        if isinstance(form, bool):
            return {}
        return {**_structure(form), **form_notes(form)}

    def _structure(form: dict[str, Any]) -> dict[str, Any]:
        if "anyOf" in form:
            return {"anyOf": [written(each) for each in form["anyOf"]]}
        if "enum" in form:
            kinds = {type(each) for each in form["enum"]}
            return {**({"type": "string"} if kinds == {str} else {}), "enum": form["enum"]}
        if "$ref" in form or permits_all(form):
            return {name: form[name] for name in ("$ref",) if name in form}
        match form["type"]:
            case "object":
                return _object(form)
            case "array":
                return _array(form)
            case "string":
                return _string(form, rewrites_patterns)
        return _number(form)

    def _object(form: dict[str, Any]) -> dict[str, Any]:
        others = [*form.get("patternProperties", {}).values(), form["additionalProperties"]]
        others = [written(each) for each in others if each is not False]
        found = {"type": "object", "properties": {name: written(each) for name, each in form["properties"].items()}}
        found |= {"required": form["required"]} if form["required"] else {}
        return {**found, "additionalProperties": _one_of(others) if others else False}

    def _array(form: dict[str, Any]) -> dict[str, Any]:
        if "prefixItems" in form:
            return {"type": "array", "prefixItems": [written(each) for each in form["prefixItems"]]}
        return {"type": "array", "items": written(form["items"]), **_counts(form, "Items")}

    root = _followed(forms)
    if permits_all(root):  # llama-server takes {} for any object
        return {"anyOf": ANYTHING, **form_notes(root)}
    parts = {name: written(part) for name, part in forms.parts.items()}
    return {**written(root), **({"$defs": parts} if parts else {})}


def _followed(forms: Forms) -> dict[str, Any]:
    """The root, itself and not a reference, because templates look for its properties."""
    root, steps = forms.root, 0
    while "$ref" in root and steps <= len(forms.parts):
        root, steps = {**forms.parts[root["$ref"].removeprefix("#/$defs/")], **form_notes(root)}, steps + 1
    return root


def _one_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _counts(form: Mapping[str, Any], of: str) -> dict[str, int]:
    found = {f"min{of}": min(form.get(f"min{of}", 0), MAX_COUNT)} if form.get(f"min{of}") else {}
    most = form.get(f"max{of}")
    return {**found, f"max{of}": most} if most is not None and most <= MAX_COUNT else found


def _string(form: Mapping[str, Any], rewrites_patterns: bool) -> dict[str, Any]:
    found = {"type": "string", **{name: form[name] for name in ("format",) if name in form}, **_counts(form, "Length")}
    if "pattern" in form:
        try:
            rewritten = rewrite(form["pattern"])
            found["pattern"] = rewritten if rewrites_patterns else form["pattern"]
        except PatternUnsupported:
            pass
    return found


def _number(form: Mapping[str, Any]) -> dict[str, Any]:
    if form["type"] != "integer":
        return dict(form)
    found: dict[str, Any] = {"type": "integer"}
    lows = [ceil(form["minimum"])] if "minimum" in form else []
    highs = [floor(form["maximum"])] if "maximum" in form else []
    lows += [floor(form["exclusiveMinimum"]) + 1] if "exclusiveMinimum" in form else []
    highs += [ceil(form["exclusiveMaximum"]) - 1] if "exclusiveMaximum" in form else []
    if lows and abs(max(lows)) < MAX_INTEGER:
        found["minimum"] = max(lows)
    if highs and abs(min(highs)) < MAX_INTEGER:
        found["maximum"] = min(highs)
    return found


def is_plain(schema: Any, root: Mapping[str, Any]) -> bool:
    """Whether the conversion reads a part of a valid schema right as it is."""
    return (
        isinstance(schema, dict)
        and _is_plain_alone(schema, root)
        and all(is_plain(each, root) for each in _parts(schema))
    )


def _is_plain_alone(schema: Mapping[str, Any], root: Mapping[str, Any]) -> bool:
    says = schema.keys() - BESIDE
    numbers = [schema[name] for name in (*COUNTS, "minimum", "maximum") if name in schema]
    return (
        not schema.keys() & FOREIGN
        and not (says & ALONE and len(says) > 1)
        and ("$ref" not in schema or _is_plain_reference(schema["$ref"], root))
        and ("enum" not in schema or says == {"enum"} or _has_texts(schema))
        and all(type(each) is int and abs(each) < MAX_INTEGER for each in numbers)
        and all(schema.get(name, 0) <= MAX_COUNT for name in COUNTS)
        and set(schema.get("required", ())) <= schema.get("properties", {}).keys()
        and isinstance(schema.get("items", {}), dict)
        and _has_plain_pattern(schema)
    )


def _has_texts(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "string" and all(isinstance(each, str) for each in schema["enum"])


def _parts(schema: Mapping[str, Any]) -> Iterator[Any]:
    for name in ("properties", "$defs", "definitions"):
        yield from schema.get(name, {}).values()
    for name in ("anyOf", "oneOf"):
        yield from schema.get(name, ())
    yield from (
        schema[name] for name in ("items", "additionalProperties") if not isinstance(schema.get(name, True), bool)
    )


def _has_plain_pattern(schema: Mapping[str, Any]) -> bool:
    try:
        rewrite(schema.get("pattern", ""))
    except UsageError:
        return False
    return True


def _is_plain_reference(reference: str, root: Any) -> bool:
    found = re.fullmatch(r"#/(\$defs|definitions)/([A-Za-z0-9_.-]+)", reference)
    return found is not None and found[2] in root.get(found[1], {})
