"""Makes GBNF grammars from JSON schemas.

    schema_to_gbnf({"type": "object", "properties": {"city": {"type": "string"}}})

Schemas are untrusted: one whose grammar could crash the engine's parser is refused.
"""

from __future__ import annotations

from typing import Any

from edgellm.engine.grammar.bounds import check_grammar
from edgellm.engine.grammar.schemas import Forms, reduced
from edgellm.engine.grammar.writer import Writer
from edgellm.errors import UsageError

# Up to this many alternatives in a schema do not multiply to a slow grammar.
MAX_CHOICES = 8


def schema_to_gbnf(schema: Any) -> str:
    """Return a grammar of the JSON texts that a schema describes, as far as a grammar can express it.

    Some of a schema no grammar can say: check the answer against the schema, too.

    Args:
        schema: a JSON schema, parsed.

    Raises:
        UsageError: it is not a JSON schema, is too large, refers to other places, or nothing can match it.
    """
    return forms_to_gbnf(reduced(schema))


def forms_to_gbnf(forms: Forms) -> str:
    """The same for a schema that is reduced already."""
    try:
        text = Writer(forms).grammar()
    except RecursionError:
        raise UsageError("there is no grammar for this JSON schema", why="its values are nested too deeply") from None
    check_grammar(text)
    return text


def is_harmless(form: Any) -> bool:
    """Whether every step of the grammar of a form, or of a JSON schema, is fast.

    Patterns and many alternatives can make a step slow.
    """
    if isinstance(form, Forms):
        return is_harmless([form.root, *form.parts.values()])
    if isinstance(form, list):
        return all(map(is_harmless, form))
    if not isinstance(form, dict):
        return True
    choices = (form.get(key) for key in ("anyOf", "oneOf", "type"))
    few = all(len(choice) <= MAX_CHOICES for choice in choices if isinstance(choice, list))
    return few and not form.keys() & {"pattern", "patternProperties"} and all(map(is_harmless, form.values()))
