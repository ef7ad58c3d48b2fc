"""Refuses GBNF grammars that could crash the engine's parser.

check_grammar('root ::= "yes" | "no"')

Grammars are untrusted, and llama.cpp's parser recurses, so anything that would crash the process or exhaust its memory
is refused first.
"""

from __future__ import annotations

import re

from edgellm.errors import UsageError

MAX_CHARACTERS = 1 << 20
MAX_RULES = 50_000
MAX_NESTING = 2_100
LITERALS = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*', re.DOTALL)


def check_grammar(text: str) -> None:
    """Raise `UsageError` for a grammar that could crash the engine's parser."""
    counts = (
        (len(text), MAX_CHARACTERS, "characters"),
        (text.count("::="), MAX_RULES, "rules"),
        (_nesting(text), MAX_NESTING, "nested parentheses"),
    )
    for found, most, unit in counts:
        if found > most:
            raise UsageError("the grammar is too large", why=f"it has {found:,} {unit}, the limit is {most:,}")
    if "\0" in text:
        raise UsageError("the grammar is not text", why="it contains a NUL byte")


def _nesting(text: str) -> int:
    depth = deepest = 0
    for character in re.findall("[()]", LITERALS.sub("", text)):
        depth += 1 if character == "(" else -1
        deepest = max(deepest, depth)
    return deepest
