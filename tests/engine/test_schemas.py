"""Schemas as grammars: what a grammar permits matches its schema; what cannot be honoured is refused by name."""

import random
from typing import Any

import pytest

from edgellm.engine.grammar.gbnf import schema_to_gbnf
from edgellm.engine.grammar.llama_schema import for_llama_server, is_plain
from edgellm.engine.grammar.schemas import reduced
from edgellm.engine.grammar.validation import SchemaChecker, loads
from edgellm.errors import UsageError
from tests.engine.gbnf_texts import GrammarTexts, TooLong


def field(schema: Any, **more: Any) -> dict[str, Any]:
    """An object with one property, `a`."""
    return {"type": "object", "properties": {"a": schema}, "required": ["a"], "additionalProperties": False, **more}


INTEGER, KIND = {"$defs": {"I": {"type": "integer"}}}, {"enum": ["x", "y"]}
NODE = {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}
HONOURED: dict[str, Any] = {
    "anything": {},
    "true": True,
    "a property that is true": field(True),
    "a property that is false": {"type": "object", "properties": {"a": False, "b": {"type": "null"}}},
    "items that are false": {"type": "array", "items": False},
    "the least number": field({"type": "number", "minimum": 1000}),
    "the most number": field({"type": "number", "maximum": -1}),
    "numbers between": field({"type": "number", "minimum": 0.25, "maximum": 1}),
    "integers between": field({"type": "integer", "exclusiveMinimum": -3, "maximum": 1205}),
    "draft 4": {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 3},
    "multiples": field({"type": "integer", "multipleOf": 7}),
    "multiples between": field({"type": "integer", "multipleOf": 5, "minimum": 3, "maximum": 20}),
    "cents": field({"type": "number", "multipleOf": 0.01, "minimum": 0}),
    "beside a reference": field({"$ref": "#/$defs/I", "minimum": 500}, **INTEGER),
    "beside anyOf": field({"anyOf": [{"type": "integer"}, {"type": "null"}], "minimum": 500}),
    "a list without doubles": {"type": "array", "items": KIND, "minItems": 2, "uniqueItems": True},
    "a list that contains": field({"type": "array", "items": {"type": "integer"}, "contains": {"const": 77}}),
    "contains two": {"type": "array", "contains": {"type": "integer"}, "minContains": 2, "items": {"type": "integer"}},
    "a tuple": {"prefixItems": [{"type": "integer"}, {"const": "a"}], "items": {"type": "null"}, "maxItems": 4},
    "a tuple of draft 7": {"type": "array", "items": [{"type": "integer"}, KIND], "additionalItems": False},
    "not a value": field({**KIND, "not": {"const": "x"}}),
    "not a type": {"not": {"type": ["object", "number"]}},
    "not required": {"properties": {"a": KIND, "b": KIND}, "not": {"required": ["b"]}},
    "if and then": {**field({"type": "boolean"}), "additionalProperties": True,
                    "if": {"properties": {"a": {"const": True}}}, "then": {"required": ["b"]}},
    "if, then, else": {"properties": {"kind": KIND, "x": {"type": "null"}, "y": {"type": "null"}},
                       "required": ["kind"], "type": "object",
                       "if": {"properties": {"kind": {"const": "x"}}, "required": ["kind"]},
                       "then": {"required": ["x"]}, "else": {"required": ["y"]}},
    "dependentRequired": {"properties": {"a": KIND, "b": KIND}, "dependentRequired": {"a": ["b"]}},
    "dependentSchemas": {"properties": {"a": KIND, "b": KIND},
                         "dependentSchemas": {"a": {"required": ["b"], "properties": {"b": {"const": "y"}}}}},
    "dependencies": {"properties": {"a": KIND, "b": KIND}, "dependencies": {"a": ["b"]}},
    "names by pattern": {"patternProperties": {"^x_[a-z]$": {"type": "boolean"}}, "additionalProperties": False,
                         "minProperties": 1, "type": "object"},
    "names by schema": {"type": "object", "propertyNames": {"pattern": "^[a-z]{2}$"}, "minProperties": 2},
    "a map": {"type": "object", "additionalProperties": KIND, "minProperties": 1, "maxProperties": 3},
    "other names": {"properties": {"a": {"type": "integer"}, "ab": {"type": "integer"}}, "required": ["ab"],
                    "additionalProperties": {"type": "string"}},
    "strange names": {"properties": {"": KIND, 'a"b': KIND, "é\n": KIND, "\\": KIND, "x.y/z~": KIND},
                      "required": ["", 'a"b', "é\n", "\\", "x.y/z~"]},
    "numbers of properties": {"properties": dict.fromkeys("abcd", KIND), "minProperties": 2, "maxProperties": 3},
    "required, not described": {"type": "object", "required": ["b"], "properties": {"a": KIND}},
    "lengths": {"type": "string", "minLength": 2, "maxLength": 4},
    "a pattern": {"type": "string", "pattern": '^(ab|c"){1,3}[^x]$'},
    "types": {"type": ["string", "null", "integer"], "maxLength": 3, "minimum": 2},
    "values of several types": {"enum": [1, "a", None, [1, 2], {"a": "é\""}, True, 1.5, "a"]},
    "values and a type": {"enum": [1, "a", None, True], "type": ["string", "null"]},
    "one value": {"const": {"a": [1]}},
    "null": {"const": None},
    "itself": {"$ref": "#/$defs/node", "$defs": {"node": {"properties": NODE, "required": ["v", "next"]}}},
    "the whole": {"properties": {"child": {"$ref": "#"}, "n": {"type": "integer"}}, "required": ["n"]},
    "allOf of objects": {"allOf": [{"properties": {"a": {"minimum": 3}}, "required": ["a"], "type": "object"},
                                   {"properties": {"a": {"type": "integer", "maximum": 5}, "b": KIND}}]},
    "allOf of values": {"allOf": [{"enum": [1, 2, "a"]}, {"type": "integer"}, {"minimum": 2}]},
    "allOf of lists": {"allOf": [{"type": "array", "maxItems": 2}, {"items": {"type": "boolean"}, "minItems": 1}]},
    "allOf of strings": {"type": "string", "allOf": [{"minLength": 2}, {"maxLength": 3}]},
    "allOf of alternatives": {"allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]},
                                        {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "null"}]}]},
    "unevaluatedProperties": {"allOf": [field(KIND)], "unevaluatedProperties": False},
    "tags": {"oneOf": [{"properties": {"t": {"const": "a"}, "v": KIND}, "required": ["t", "v"]},
                       {"properties": {"t": {"const": "b"}}, "required": ["t"]}]},
    "escaped pointers": {"properties": {"a": {"$ref": "#/definitions/x~1y~0"},
                                        "b": {"$ref": "#/definitions/P%3CT%25%3E"}},
                         "required": ["a", "b"], "definitions": {"x/y~": KIND, "P<T%>": {"type": "null"}}},
    "anchors": {"$ref": "#here", "$defs": {"x": {"$anchor": "here", "const": 5}}},
    "its own address": {"$id": "https://example.org/s", "$ref": "https://example.org/s#/$defs/x", "$defs": {"x": KIND}},
    "formats": {"properties": {name: {"type": "string", "format": name} for name in (
        "date", "time", "date-time", "uuid", "email", "hostname", "uri", "ipv4", "ipv6", "duration")},
        "minProperties": 10},
}  # fmt: skip


@pytest.mark.parametrize("name", HONOURED)
def test_what_a_grammar_permits_matches_the_schema(name: str) -> None:
    texts, checker, chance = (
        GrammarTexts(schema_to_gbnf(HONOURED[name])),
        SchemaChecker(HONOURED[name]),
        random.Random(5),
    )
    n_drawn = 0
    for _ in range(40):
        try:
            text = texts.draw(chance)
        except TooLong:
            continue
        n_drawn += 1
        assert checker.fault(loads(text)) is None, text
    assert n_drawn > 10


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (False, "nothing can match"),
        ({"not": {}}, "nothing can match"),
        ({"type": "integer", "minimum": 3, "maximum": 1}, "nothing can match"),
        ({"type": "array", "minItems": 3, "maxItems": 1}, "nothing can match"),
        ({"enum": [1, 2], "type": "string"}, "nothing can match"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "nothing can match"),
        ({"required": ["a"], "properties": {"a": False}}, "nothing can match"),
        ({"required": ["a", "b"], "maxProperties": 1}, "nothing can match"),
        ({"required": ["a"], "additionalProperties": False}, "nothing can match"),
        (field({"$ref": "#"}), "no end"),
        ({"$ref": "#"}, "no end"),
        ({"$ref": "#/$defs/nosuch"}, "nothing in the schema"),
        ({"$ref": "https://example.org/schema"}, "never fetched"),
        ({"$ref": "other.json#/x"}, "never fetched"),
        ({"type": "nosuch"}, "nosuch"),
        ({"pattern": "(["}, "pattern"),
        ({"patternProperties": {"^a": {}}, "unevaluatedProperties": False}, "together with patternProperties"),
        ({"type": "string", "pattern": "^a{3,1}$"}, ""),
        ({"enum": ["x" * 300_000]}, "262,144 characters"),
        ({"properties": {f"p{n}": {} for n in range(1_001)}}, "1,001 optional properties, the limit is 1,000"),
        ({"allOf": [{"anyOf": [{"const": n} for n in range(40)]}] * 2}, "more than 1,000 alternatives"),
    ],
)
def test_what_is_refused_says_why(schema: Any, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        schema_to_gbnf(schema)
    assert why in f"{caught.value.what} {caught.value.why}"


def test_schemas_that_would_have_no_end() -> None:
    deep: Any = {"type": "string"}
    for _ in range(300):
        deep = {"items": deep}
    with pytest.raises(UsageError) as caught:
        reduced(deep)
    assert caught.value.why == "it is nested more than 100 deep"
    doubling = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)}
    schema = {"$ref": "#/$defs/d0", "$defs": {**doubling, "d60": {"type": "integer"}}}
    assert SchemaChecker(schema).fault(1) == "it cannot be checked within 2 seconds"


@pytest.mark.parametrize("most", [1_999, 2_000, 2_001, 5_000, 10**9])
def test_limits_beyond_what_a_grammar_repeats_are_left_to_the_check(most: int) -> None:
    for schema in ({"type": "string", "maxLength": most}, {"items": {"type": "null"}, "maxItems": most}):
        assert GrammarTexts(schema_to_gbnf(schema)).rules["root"]  # it checks the counts that it reads


def test_a_tools_schema_for_llama_server_keeps_what_the_model_reads() -> None:
    schema = {"properties": {"a": {"allOf": [{"$ref": "#/$defs/k"}], "description": "which"}}, "$defs": {"k": KIND}}
    written = for_llama_server(reduced(schema), rewrites_patterns=False)
    assert written["properties"]["a"]["description"] == "which"
    assert {"type": "string", **KIND} in written["$defs"].values()
    assert for_llama_server(reduced({}), rewrites_patterns=False)["anyOf"][0] == {"type": "object"}


@pytest.mark.parametrize("name", HONOURED)
def test_schemas_for_llama_server_are_schemas_that_it_reads(name: str) -> None:
    written = for_llama_server(reduced(HONOURED[name]), rewrites_patterns=True)
    SchemaChecker(written)
    assert not {"allOf", "not", "if", "oneOf", "const"} & keys_of(written) and written not in (True, {})


def keys_of(schema: Any) -> set[str]:
    """All keywords in a schema, names of properties left out."""
    if isinstance(schema, list):
        return set().union(*map(keys_of, schema))
    if not isinstance(schema, dict):
        return set()
    named = [part for name in ("properties", "$defs") for part in schema.get(name, {}).values()]
    others = [value for name, value in schema.items() if name not in ("properties", "$defs", "enum")]
    return set(schema).union(*map(keys_of, [*named, *others]))


def test_plain_schemas_need_not_be_rewritten() -> None:
    plain = {"type": "object", "properties": {"a": {"type": "string", "enum": ["x"]}, "b": {"$ref": "#/$defs/k"}},
             "required": ["a"], "$defs": {"k": {"type": "integer", "minimum": 3}}}  # fmt: skip
    assert is_plain(plain, plain)
    strange = ({"allOf": [plain]}, {"properties": {"a": True}}, {"$ref": "#/$defs/a~1b"}, {"pattern": "(?=a)"},
               {"required": ["x"]}, {"maxItems": 2_000}, {"enum": [1], "minimum": 2}, {"items": [{}]})  # fmt: skip
    assert not any(is_plain({"type": "object", "properties": {"p": each}}, plain) for each in strange)
