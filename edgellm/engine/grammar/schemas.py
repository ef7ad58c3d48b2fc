"""Reduces a JSON schema to the forms that a grammar can express.

    forms = reduced({"allOf": [{"$ref": "#/$defs/size"}, {"maximum": 9}], "$defs": {"size": {"type": "integer"}}})
    forms.root  ->  {"type": "integer", "maximum": 9}

A form is itself a JSON schema, of few keywords:

    {}                        any JSON              {"$ref": "#/$defs/NAME"}      one of `forms.parts`
    {"enum": [...]}           these values          {"anyOf": [form, ...]}        one of these
    {"type": "object", "properties": {name: form}, "required": [...], "additionalProperties": form or False,
     "patternProperties": {pattern: form}, "propertyNames": form, "minProperties", "maxProperties"}
    {"type": "array", "prefixItems": [form, ...], "items": form, "minItems", "maxItems"}
    {"type": "string", "pattern" or "format", "minLength", "maxLength"}
    {"type": "integer" or "number", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
    {"type": "boolean"}       {"type": "null"}

References are resolved, `allOf` and what stands beside a `$ref` or an `anyOf` is merged, conditions become
alternatives, and values and properties that nothing matches are left out. Two conventions narrow a schema, as other
converters do: an object with `properties` has no others unless `additionalProperties` says so, and a list with
`prefixItems` has all of those. What a form does not say is up to `validation.SchemaChecker`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from edgellm.engine.grammar.merge import Keywords, both, merged, part_for
from edgellm.engine.grammar.validation import SchemaChecker, SchemaTooSlow
from edgellm.errors import UsageError

MAX_CHARACTERS = 1 << 18
MAX_DEPTH = 100
# Parts of a schema after its references and `allOf` are resolved.
MAX_PARTS = 20_000
# Alternatives of one place, after those of several keywords are combined.
MAX_ALTERNATIVES = 1_000
# So many orders of a list without repetitions are written out.
MAX_ORDERS = 100

KEYWORDS_OF = {
    "object": ("properties", "patternProperties", "additionalProperties", "required", "propertyNames",
               "minProperties", "maxProperties"),
    "array": ("prefixItems", "items", "minItems", "maxItems", "contains", "minContains", "maxContains", "uniqueItems"),
    "string": ("pattern", "format", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}  # fmt: skip
OWN = frozenset(name for names in KEYWORDS_OF.values() for name in names)
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
COMBINING = frozenset(
    {"$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "not", "if", "dependentRequired",
     "dependentSchemas", "dependencies"}
)  # fmt: skip
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
# What a schema says to its readers; forms keep it.
NOTES = ("title", "description", "default", "examples")
ASSERTIONS = OWN | COMBINING | {"type", "const", "enum", "additionalItems"}

# A form, or False where nothing matches.
Form = dict[str, Any] | bool


@dataclass(frozen=True, slots=True)
class Forms:
    """The form of a schema, and the forms that its references name."""

    root: dict[str, Any]
    parts: Mapping[str, dict[str, Any]]


def reduced(schema: Any, checker: SchemaChecker | None = None) -> Forms:
    """The forms of a schema.

    Raises:
        UsageError: it is not a JSON schema, is too large, refers to other places, or nothing can match it.
    """
    try:
        if len(json.dumps(schema)) > MAX_CHARACTERS:
            raise _refusal(f"it has more than {MAX_CHARACTERS:,} characters")
        _check_depth(schema)
        return _Reducer(checker or SchemaChecker(schema)).read(schema)
    except RecursionError:
        raise _refusal(f"it is nested more than {MAX_DEPTH} deep") from None
    except SchemaTooSlow:
        raise _refusal("one of its patterns takes too long") from None


def permits_all(form: Form) -> bool:
    """Whether a form permits any JSON."""
    return not isinstance(form, bool) and not form.keys() & {"$ref", "anyOf", "enum", "type"}


def _refusal(why: str) -> UsageError:
    return UsageError("there is no grammar for this JSON schema", why=why)


def _check_depth(schema: Any, depth: int = 0) -> None:
    if depth > 2 * MAX_DEPTH:  # `properties` and the like are levels of their own
        raise RecursionError
    for each in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _check_depth(each, depth + 1)


class _Reducer:
    def __init__(self, checker: SchemaChecker) -> None:
        self._checker = checker
        self._names: dict[str, str] = {}
        self._parts: dict[str, Form] = {}
        self._n_parts = 0

    def read(self, schema: Any) -> Forms:
        root = self._form(schema)
        endless, known = root, frozenset[str]()
        while (
            more := frozenset(each for each in self._parts if _finite(self._parts[each], known) is not False)
        ) - known:
            known = more
        root = _finite(endless, known)
        if isinstance(root, bool):
            endless_too = endless is not False
            raise _refusal("whatever matches it has no end" if endless_too else "nothing can match it")
        parts = {name: _finite(self._parts[name], known) for name in known}
        return Forms(root, {name: part for name, part in parts.items() if not isinstance(part, bool)})

    def _form(self, schema: Any) -> Form:
        self._n_parts += 1
        if self._n_parts > MAX_PARTS:
            raise _refusal(f"it has more than {MAX_PARTS:,} parts, references and allOf resolved")
        if isinstance(schema, bool):
            return {} if schema else False
        form = self._unannotated(schema)
        return form if isinstance(form, bool) else {**form, **form_notes(schema)}

    def _unannotated(self, schema: dict[str, Any]) -> Form:
        says = schema.keys() & ASSERTIONS
        if not says:
            return {}
        if len(says) == 1:
            (keyword,) = says
            if keyword in REFERENCES:
                reference = schema[keyword]
                target = self._checker.target(reference)
                return self._named(f"$ref {reference}", reference.rsplit("/", 1)[-1], lambda: self._form(target))
            if keyword in ("anyOf", "oneOf"):
                return _any(self._form(each) for each in schema[keyword])
        text = json.dumps(schema, sort_keys=True)
        if any(f'"{name}"' in text for name in REFERENCES):
            return self._named(text, "part", lambda: self._combined(schema))
        return self._combined(schema)

    def _named(self, key: str, hint: str, build: Callable[[], Form]) -> Form:
        """The form of a part that may refer to itself, under a name of its own."""
        name = self._names.get(key)
        if name is None:
            stem = re.sub(r"[^A-Za-z0-9]+", "-", hint).strip("-")[:40] or "part"
            name, number = stem, 1
            while name in self._parts:
                number += 1
                name = f"{stem}-{number}"
            self._names[key] = name
            self._parts[name] = False  # for now
            self._parts[name] = build()
        return {"$ref": f"#/$defs/{name}"}

    def _combined(self, schema: dict[str, Any]) -> Form:
        return _any(form for each in self._alternatives(schema, ()) for form in self._by_type(each, schema))

    def _alternatives(self, schema: Any, within: tuple[str, ...]) -> list[Keywords]:
        """The keywords of a schema, once for each combination of the alternatives in it."""
        if isinstance(schema, bool):
            return [{}] if schema else []
        found = [_own(schema)]
        for part, reference in self._conjuncts(schema):
            if reference in within:  # it is checked afterwards
                continue
            found = _combinations(found, self._alternatives(part, (*within, reference) if reference else within))
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                choices = (each for part in schema[keyword] for each in self._alternatives(part, within))
                found = _combinations(found, choices)
        return found

    def _conjuncts(self, schema: dict[str, Any]) -> Iterator[tuple[Any, str]]:
        """What must match as well as a schema's own keywords; and the reference, where it is one."""
        for keyword in REFERENCES:
            if keyword in schema:
                yield self._checker.target(schema[keyword]), schema[keyword]
        for part in schema.get("allOf", ()):
            yield part, ""
        if "not" in schema:
            yield _negated(schema["not"]), ""
        if "if" in schema and ("then" in schema or "else" in schema):
            otherwise = both(_negated(schema["if"]), schema.get("else", True))
            yield {"anyOf": [both(schema["if"], schema.get("then", True)), otherwise]}, ""
        for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
            for name, needed in schema.get(keyword, {}).items():
                needed = [needed] if isinstance(needed, str) else needed
                then = {"required": [name, *needed]} if isinstance(needed, list) else both({"required": [name]}, needed)
                yield {"anyOf": [then, {"properties": {name: False}}]}, ""

    def _by_type(self, keywords: Keywords, schema: dict[str, Any]) -> Iterator[Form]:
        """The forms of keywords, one for each type that a value may have."""
        types = keywords.get("types")
        if "enum" in keywords:
            yield {"enum": [each for each in keywords["enum"] if self._checker.permits(schema, each)]}
            return
        if types is None:
            types = frozenset(name for name, own in KEYWORDS_OF.items() if any(each in keywords for each in own))
            if not types and "not" in schema:
                types = frozenset(TYPES)
            if not types:
                yield {}
                return
        for name in TYPES:
            if name in types and not (name == "integer" and "number" in types):
                yield self._of_type(name, keywords, schema)

    def _of_type(self, name: str, keywords: Keywords, schema: dict[str, Any]) -> Form:
        if name == "object":
            return self._object(keywords)
        if name == "array":
            return self._array(keywords)
        if name in ("string", "number", "integer"):
            own = KEYWORDS_OF["string" if name == "string" else "number"]
            return _within_limits({"type": name, **{each: keywords[each] for each in own if each in keywords}})
        values = [True, False] if name == "boolean" else [None]
        left = [each for each in values if self._checker.permits(schema, each)] if schema.keys() & COMBINING else values
        return {"type": name} if left == values else {"enum": left}

    def _object(self, keywords: Keywords) -> Form:
        required = list(dict.fromkeys(keywords.get("required", ())))
        least, most = keywords.get("minProperties", 0), keywords.get("maxProperties")
        names_form = self._form(keywords.get("propertyNames", True))
        properties: dict[str, Any] = {}
        for name in dict.fromkeys([*keywords.get("properties", {}), *required]):
            fits = self._checker.permits(keywords.get("propertyNames", True), name)
            form = self._form(part_for(name, keywords)) if fits else False
            if form is not False:
                properties[name] = form
            elif name in required:
                return False
        is_open = not properties and "patternProperties" not in keywords and "properties" not in keywords
        additional = self._form(keywords.get("additionalProperties", is_open))
        patterns = {
            pattern: form
            for pattern, part in keywords.get("patternProperties", {}).items()
            if (form := self._form(part)) is not False
        }
        optional = [name for name in properties if name not in required]
        if most is not None:
            if len(required) > most:
                return False
            if properties:
                optional, additional, patterns = optional[: most - len(required)], False, {}
                properties = {name: form for name, form in properties.items() if name in required or name in optional}
        required += optional[: max(0, least - len(required))]
        can_grow = (additional is not False or patterns) and names_form is not False
        if len(required) < least and not can_grow:
            return False
        form = {"type": "object", "properties": properties, "required": required}
        form["additionalProperties"] = additional if can_grow else False
        more = {"patternProperties": patterns, "minProperties": least, "maxProperties": most}
        form |= {name: value for name, value in more.items() if value}
        if not isinstance(names_form, bool) and not permits_all(names_form):
            form["propertyNames"] = names_form
        return {**form, "maxProperties": 0} if most == 0 else form

    def _array(self, keywords: Keywords) -> Form:
        first, rest = list(keywords.get("prefixItems", ())), keywords.get("items")
        least, most = keywords.get("minItems", 0), keywords.get("maxItems")
        contained, n_contained = keywords.get("contains"), keywords.get("minContains", 1)
        if contained is not None and n_contained > 0 and not first:
            first = [both(contained, True if rest is None else rest)] * min(n_contained, MAX_ORDERS)
            rest = True if rest is None else rest
        forms = [self._form(part) for part in first if most != 0]
        if False in forms:
            most = min(forms.index(False), len(forms) if most is None else most)
        forms = forms[:most]
        rest_form = self._form(rest if rest is not None else not forms or least > len(forms))
        if rest_form is False:
            most = min(len(forms), len(forms) if most is None else most)
        if most is not None and least > most:
            return False
        if keywords.get("uniqueItems") and not forms and (orders := _orders(rest_form, least, most)):
            return {"enum": orders}
        form: dict[str, Any] = {"type": "array", "minItems": max(least, len(forms))}
        if forms:
            form["prefixItems"] = forms
        if most is not None:
            form["maxItems"] = most
        return {**form, "items": rest_form}


def _own(schema: dict[str, Any]) -> Keywords:
    """A schema's own keywords, in the newest dialect's terms."""
    found = {name: value for name, value in schema.items() if name in OWN}
    if "type" in schema:
        found["types"] = _types(schema["type"])
    if "const" in schema:
        found["enum"] = [schema["const"]]
    elif "enum" in schema:
        found["enum"] = schema["enum"]
    if isinstance(found.get("items"), list):
        found["prefixItems"] = found.pop("items")
        found |= {"items": schema["additionalItems"]} if "additionalItems" in schema else {}
    for exclusive, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(found.get(exclusive), bool):  # as draft 4 has it
            is_exclusive = found.pop(exclusive)
            if is_exclusive and limit in found:
                found[exclusive] = found.pop(limit)
    return found


def _types(kinds: str | list[str]) -> frozenset[str]:
    """The types that `type` names; every integer is a number too."""
    named = {kinds} if isinstance(kinds, str) else set(kinds)
    return frozenset(named | {"integer"} if "number" in named else named)


def _combinations(found: list[Keywords], others: Iterable[Keywords]) -> list[Keywords]:
    combined: list[Keywords] = []
    for other in others:
        combined += [whole for each in found if (whole := merged(each, other)) is not None]
        if len(combined) > MAX_ALTERNATIVES:
            raise _refusal(f"a place in it has more than {MAX_ALTERNATIVES:,} alternatives")
    return combined


def _negated(schema: Any) -> Any:
    """A schema of what does not match one, as far as forms can say it; else of anything."""
    if isinstance(schema, bool):
        return not schema
    says = schema.keys() & ASSERTIONS
    if not says:
        return False
    if says == {"type"}:
        kinds = _types(schema["type"])
        return {"type": [name for name in TYPES if name not in kinds and not (name == "number" and "integer" in kinds)]}
    if says == {"required"} and len(schema["required"]) == 1:
        return {"properties": {schema["required"][0]: False}}
    properties = schema.get("properties", {})
    if "properties" in says and says <= {"properties", "required", "type"} and len(properties) == 1:
        ((name, part),) = properties.items()
        if set(schema.get("required", ())) <= {name}:
            return {"properties": {name: {"not": part}}, "required": [name]}
    return True


def _any(forms: Iterable[Form]) -> Form:
    """One of several forms; those that nothing matches are left out, and doubles."""
    left: list[dict[str, Any]] = []
    for form in forms:
        if isinstance(form, bool) or form.get("enum") == []:
            continue
        if permits_all(form):
            return {}
        left += [each for each in form.get("anyOf", [form]) if each not in left]
    return {"anyOf": left} if len(left) > 1 else left[0] if left else False


def _within_limits(form: dict[str, Any]) -> Form:
    """A form, or False if its limits exclude each other."""
    lows = [form[name] for name in ("minimum", "exclusiveMinimum", "minLength") if name in form]
    highs = [form[name] for name in ("maximum", "exclusiveMaximum", "maxLength") if name in form]
    if lows and highs and max(lows) > min(highs):
        return False
    return form


def _orders(form: Form, least: int, most: int | None) -> list[Any]:
    """All lists without repetitions of a form's values, if they are few."""
    values = form.get("enum", [True, False] if form.get("type") == "boolean" else []) if isinstance(form, dict) else []
    most = len(values) if most is None else min(most, len(values))
    found: list[Any] = []
    for length in range(least, most + 1):
        for order in permutations(values, length):
            found.append(list(order))
            if len(found) > MAX_ORDERS:
                return []
    return found


def form_notes(form: dict[str, Any]) -> dict[str, Any]:
    """What a form says to its readers."""
    return {name: form[name] for name in NOTES if name in form}


def _finite(form: Form, known: frozenset[str]) -> Form:
    """A form without what can have no end; `known` are the parts that can have one."""
    if isinstance(form, bool) or permits_all(form):
        return form
    if "$ref" in form:
        return form if form["$ref"].removeprefix("#/$defs/") in known else False
    if "anyOf" in form:
        left = _any(_finite(each, known) for each in form["anyOf"])
        return left if isinstance(left, bool) else {**form_notes(form), **left}
    if form.get("enum") == []:
        return False
    if form.get("type") == "object":
        return _finite_object(form, known)
    return _finite_array(form, known) if form.get("type") == "array" else form


def _finite_object(form: dict[str, Any], known: frozenset[str]) -> Form:
    whole = {name: _finite(each, known) for name, each in form["properties"].items()}
    properties = {name: each for name, each in whole.items() if each is not False}
    if any(name not in properties for name in form["required"]):
        return False
    found = {**form, "properties": properties, "additionalProperties": _finite(form["additionalProperties"], known)}
    if "patternProperties" in form:
        patterns = {pattern: _finite(each, known) for pattern, each in form["patternProperties"].items()}
        found["patternProperties"] = {pattern: each for pattern, each in patterns.items() if each is not False}
    can_grow = found["additionalProperties"] is not False or found.get("patternProperties")
    return found if can_grow or len(form["required"]) >= form.get("minProperties", 0) else False


def _finite_array(form: dict[str, Any], known: frozenset[str]) -> Form:
    first = [_finite(each, known) for each in form.get("prefixItems", ())]
    rest = _finite(form["items"], known)
    if False in first:
        return False
    found = {**form, "items": rest, **({"prefixItems": first} if first else {})}
    if rest is False:
        found["maxItems"] = len(first)
    return found if found["minItems"] <= found.get("maxItems", found["minItems"]) else False
