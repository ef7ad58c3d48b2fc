"""The shapes of `--json`: what a verb's return type promises, in words, and whether a document keeps it.

returned("list")                             ->  list[ListedModel] | list[Recipe]
Shapes().describe(list[ListedModel])         ->  "[ListedModel]"
mismatch([{"name": "smollm2"}], list[ListedModel])  ->  "[0]: the keys ... are missing"
"""

import dataclasses
import inspect
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from edgellm.cli import VERBS, Family, LazyCommand, Verb, function_of
from edgellm.ui.render import names_of

WORDS = {str: "string", Path: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null", Any: "any"}

SEQUENCES, MAPPINGS = (list, tuple, Sequence), (dict, Mapping)


def commands() -> dict[str, Verb]:
    """Every verb by its full name, `chats ls` for one of a family; aliases are left out."""
    found: dict[str, Verb] = {}
    for name, verb in VERBS.items():
        members = {f"{name} {each}": it for each, it in verb.verbs.items()} if isinstance(verb, Family) else {}
        found |= {full: it for full, it in (members or {name: verb}).items() if not it.hidden}
    return found


def lazy(command: str) -> LazyCommand:
    """The verb as `edgellm --help` holds it."""
    return LazyCommand(command.split()[-1], commands()[command], command.rpartition(" ")[0])


def help_of(command: str, width: int = 100) -> str:
    """The text of `edgellm COMMAND --help`."""
    context = lazy(command).make_context(f"edgellm {command}", [], resilient_parsing=True, terminal_width=width)
    return str(context.get_help())


def returned(command: str) -> Any:
    """The type of a verb's `data`."""
    return get_type_hints(function_of(commands()[command]))["return"]


def keys_of(kind: type[Any]) -> dict[str, Any]:
    """The keys under which an object appears in JSON, and their types."""
    hints = get_type_hints(kind)
    if typing.is_typeddict(kind):
        return hints
    own = {name: inspect.getattr_static(kind, name, None) for name in names_of(kind)}
    return {
        name: get_type_hints(item.fget)["return"] if isinstance(item, property) else hints[name]
        for name, item in own.items()
    }


def is_object(kind: Any) -> bool:
    """Whether a type has keys that are known: a dataclass or a TypedDict."""
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or typing.is_typeddict(kind))


class Shapes:
    """Describes types in JSON's words; `objects` collects those that need a description of their own, in order."""

    def __init__(self) -> None:
        self.objects: dict[str, type[Any]] = {}

    def describe(self, kind: Any) -> str:
        """A type in a few words."""
        origin, arguments = get_origin(kind), get_args(kind)
        if kind in WORDS:
            return WORDS[kind]
        if origin in (UnionType, typing.Union):
            return " or ".join(dict.fromkeys(map(self.describe, arguments)))
        if origin is Literal:
            return " or ".join(f'"{value}"' for value in arguments)
        if origin in SEQUENCES:
            return f"[{self.describe(arguments[0])}]"
        if origin in MAPPINGS:
            return f"{{string: {self.describe(arguments[1])}}}"
        if issubclass(kind, Enum):
            return " or ".join(f'"{member.value}"' for member in kind)
        if issubclass(kind, BaseModel):
            if kind.__name__ == "OfferedRecipe":
                return "recipe with its `size` and `needed` in bytes and `fits`, where they are known"
            return "recipe" if kind.__name__ == "Recipe" else f"a recipe's {kind.__name__.lower()}"
        assert is_object(kind), kind
        name = kind.__name__
        if self.objects.get(name, kind) is not kind:  # the same word in another part of edgellm
            name = f"{kind.__module__.split('.')[1].capitalize()}{name}"
        assert self.objects.setdefault(name, kind) is kind, f"two types are called {name}"
        return f"[{name}](#{name.lower()})"


def mismatch(value: Any, kind: Any, place: str = "data") -> str:
    """What in a JSON value is not as its type promises; empty when nothing is."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return ""
    if origin in (UnionType, typing.Union):
        wrong = [mismatch(value, each, place) for each in arguments]
        return "" if "" in wrong else "; ".join(wrong)
    if origin in SEQUENCES:
        if not isinstance(value, list):
            return f"{place} is no list"
        return next(filter(None, (mismatch(v, arguments[0], f"{place}[{i}]") for i, v in enumerate(value))), "")
    if origin in MAPPINGS:
        if not isinstance(value, dict):
            return f"{place} is no object"
        return next(filter(None, (mismatch(v, arguments[1], f"{place}.{k}") for k, v in value.items())), "")
    if is_object(kind):
        keys = keys_of(kind)
        required = set(keys) - getattr(kind, "__optional_keys__", frozenset())
        if not isinstance(value, dict) or not required <= set(value) <= set(keys):
            return f"{place} is not {kind.__name__}: {set(keys) ^ set(value if isinstance(value, dict) else ())}"
        return next(filter(None, (mismatch(value[key], keys[key], f"{place}.{key}") for key in value)), "")
    if origin is Literal or (isinstance(kind, type) and issubclass(kind, Enum)):
        allowed = arguments if origin is Literal else [member.value for member in kind]
        return "" if value in allowed else f"{place} is {value!r}"
    # What is infinite is null, and a whole number is a number.
    basic = {Path: str, float: (float, int, NoneType)}.get(kind, kind)
    return "" if isinstance(value, basic) else f"{place} is {value!r}, no {kind.__name__}"
