"""Grammars that an answer must follow: GBNF as llama.cpp reads it, written by hand or made from a JSON schema.

    schema_to_gbnf({"type": "object", "properties": {"city": {"type": "string"}}}, installed.bindings)

The conversion is llama.cpp's own, as it lies among the engine's bindings. Schemas and grammars come from outside, and
the parser in C recurses: what would end the process, or fill its memory, is refused before.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from edgellm.engine.installed import BUILD_COMMAND
from edgellm.engine.patterns import with_rewritten_patterns
from edgellm.errors import EngineError, UsageError

MAX_CHARACTERS = 1 << 18
MAX_RULES = 20_000
# llama.cpp's own limit of repetitions. A schema's maxLength becomes so many nested parentheses.
MAX_REPETITIONS = 2_000
MAX_NESTING = MAX_REPETITIONS + 100
# So many alternatives of a schema do not yet multiply to much.
MAX_CHOICES = 8
# Keywords of a schema that become repetitions.
COUNTS = ("minItems", "maxItems", "minLength", "maxLength")
LITERALS = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*', re.DOTALL)
# A character of a JSON string.
CHARACTER = r'[^"\\\x7F\x00-\x1F] | [\\] (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F])'
# What the conversion does with a schema that it does not expect.
CONVERSION_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def check_grammar(text: str) -> None:
    """Raise `UsageError` for what the engine's parser could not survive."""
    counts = (
        (len(text), MAX_CHARACTERS, "characters"),
        (text.count("::="), MAX_RULES, "rules"),
        (_nesting(text), MAX_NESTING, "nested parentheses"),
    )
    for found, most, unit in counts:
        if found > most:
            raise UsageError("the grammar is too large", why=f"it has {found:,} {unit}, the limit is {most:,}")
    if "\0" in text:
        raise UsageError("the grammar is no text", why="it contains a NUL byte")


def _nesting(text: str) -> int:
    depth = deepest = 0
    for character in re.findall("[()]", LITERALS.sub("", text)):
        depth += 1 if character == "(" else -1
        deepest = max(deepest, depth)
    return deepest


def schema_to_gbnf(schema: Any, bindings: Path) -> str:
    """The grammar of the JSON texts that a schema describes, as far as a grammar can tell.

    Ranges of numbers and a few more keywords it cannot: check the answer against the schema as well.

    Args:
        schema: a JSON schema, parsed.
        bindings: where the engine's Python package lies.

    Raises:
        UsageError: the schema is wrong, too large, or uses what the conversion does not know.
    """
    if not isinstance(schema, dict):
        raise UsageError("a JSON schema is an object", why=f"this one is {json.dumps(schema)[:40]}")
    try:
        text = json.dumps(schema)
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"it has {len(text):,} characters, the limit is {MAX_CHARACTERS:,}")
        _check_counts(schema)
        converter = _converter(bindings)
        # It writes references into the schema: only a copy is given to it.
        converter.visit(converter.resolve_refs(with_rewritten_patterns(json.loads(text)), "schema"), "")
        return str(converter.format_grammar())
    except CONVERSION_FAILURES as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
        raise UsageError("there is no grammar for this JSON schema", why=why) from error


def _check_counts(schema: Any) -> None:
    """Refuse counts that would fill the memory with repetitions."""
    if isinstance(schema, list):
        for item in schema:
            _check_counts(item)
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if key in COUNTS and isinstance(value, int) and value > MAX_REPETITIONS:
            raise ValueError(f"{key} is {value:,}, a grammar repeats {MAX_REPETITIONS:,} times at most")
        _check_counts(value)


def is_harmless(schema: Any) -> bool:
    """Whether no step through a schema's grammar takes long: that takes patterns, or many ways to write the same."""
    if isinstance(schema, list):
        return all(map(is_harmless, schema))
    if not isinstance(schema, dict):
        return True
    choices = (schema.get(key) for key in ("anyOf", "oneOf", "type"))
    few = all(len(choice) <= MAX_CHOICES for choice in choices if isinstance(choice, list))
    return few and "pattern" not in schema and all(map(is_harmless, schema.values()))


def _converter(bindings: Path) -> Any:
    module = _conversion(bindings)

    class Converter(module.SchemaConverter):  # type: ignore[misc, name-defined]
        """With backslashes in constants and names: the original leaves them to act as escapes."""

        def _format_literal(self, literal: str) -> str:
            return str(super()._format_literal(literal.replace("\\", "\\\\")))

    return Converter(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)


@lru_cache(maxsize=1)
def _conversion(bindings: Path) -> ModuleType:
    """The module of the bindings that has the conversion, without the package around it."""
    path = bindings / "llama_cpp" / "llama_grammar.py"
    spec = importlib.util.spec_from_file_location("edgellm_llama_grammar", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise EngineError("the engine's bindings are not whole", why=f"there is no {path}", hint=BUILD_COMMAND)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    # The original permits control characters within a string, which JSON does not.
    module.PRIMITIVE_RULES["char"] = module.BuiltinRule(CHARACTER, [])
    return module
