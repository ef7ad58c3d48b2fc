"""Merges keywords of JSON schemas that must hold together, as below `allOf` or beside a `$ref`.

    merged({"minimum": 3}, {"minimum": 5, "maximum": 9})  ->  {"minimum": 5, "maximum": 9}

`types` stands for `type`: a set of names. Of what cannot be merged one side is kept: a grammar that permits too much
does no harm, because the whole schema is checked afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import lcm
from typing import Any

from edgellm.engine.grammar.validation import search

LARGEST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains")
SMALLEST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains")
SCHEMAS = ("propertyNames", "contains")
OBJECTS = ("properties", "patternProperties", "additionalProperties")
ARRAYS = ("prefixItems", "items")

Keywords = dict[str, Any]


def both(one: Any, other: Any) -> Any:
    """A schema of what both schemas permit."""
    if one is False or other is False:
        return False
    if one in (True, {}) or one == other:
        return other
    return one if other in (True, {}) else {"allOf": [one, other]}


def merged(one: Keywords, other: Keywords) -> Keywords | None:
    """The keywords of both; None if no value can match both."""
    whole = {**other, **one}
    for name in whole.keys() & one.keys() & other.keys():
        if name in MERGES:
            whole[name] = MERGES[name](one[name], other[name])
    if any(name in one or name in other for name in OBJECTS):
        whole |= _objects(one, other)
    if any(name in one or name in other for name in ARRAYS):
        whole |= _arrays(one, other)
    return None if whole.get("types") == frozenset() else whole


def part_for(name: str, keywords: Mapping[str, Any]) -> Any:
    """The schema that an object's keywords have for the property of a name."""
    parts = [part for pattern, part in keywords.get("patternProperties", {}).items() if search(pattern, name)]
    if name in keywords.get("properties", {}):
        parts.insert(0, keywords["properties"][name])
    if not parts:
        return keywords.get("additionalProperties", True)
    whole = parts[0]
    for part in parts[1:]:
        whole = both(whole, part)
    return whole


def _objects(one: Keywords, other: Keywords) -> Keywords:
    names = dict.fromkeys([*one.get("properties", {}), *other.get("properties", {})])
    patterns = dict.fromkeys([*one.get("patternProperties", {}), *other.get("patternProperties", {})])
    found: Keywords = {}
    if names:
        found["properties"] = {name: both(part_for(name, one), part_for(name, other)) for name in names}
    if patterns:
        found["patternProperties"] = {
            pattern: both(_pattern_part(pattern, one), _pattern_part(pattern, other)) for pattern in patterns
        }
    if "additionalProperties" in one or "additionalProperties" in other:
        found["additionalProperties"] = both(*(each.get("additionalProperties", True) for each in (one, other)))
    return found


def _pattern_part(pattern: str, keywords: Keywords) -> Any:
    return keywords.get("patternProperties", {}).get(pattern, keywords.get("additionalProperties", True))


def _arrays(one: Keywords, other: Keywords) -> Keywords:
    n_first = max(len(each.get("prefixItems", ())) for each in (one, other))
    found: Keywords = {}
    if n_first:
        found["prefixItems"] = [both(_item(index, one), _item(index, other)) for index in range(n_first)]
    if "items" in one or "items" in other:
        found["items"] = both(one.get("items", True), other.get("items", True))
    return found


def _item(index: int, keywords: Keywords) -> Any:
    first = keywords.get("prefixItems", ())
    return first[index] if index < len(first) else keywords.get("items", True)


def _common_multiple(one: Any, other: Any) -> Any:
    return lcm(one, other) if isinstance(one, int) and isinstance(other, int) else one


MERGES: Mapping[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(LARGEST, max),
    **dict.fromkeys(SMALLEST, min),
    **dict.fromkeys(SCHEMAS, both),
    "types": frozenset.intersection,
    "multipleOf": _common_multiple,
    "required": lambda one, other: list(dict.fromkeys([*one, *other])),
}
