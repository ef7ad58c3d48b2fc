"""Parses JSON objects from untrusted files, and rejects what Python's parser accepts too freely.

header = parse_object(data, name="model.safetensors")
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from edgellm.errors import CorruptFile, NotText
from edgellm.text import decode_text

# Converting an integer of a million digits takes minutes. tokenizer_config.json writes "no limit" with 31 digits.
_MAX_INTEGER_DIGITS = 100


def parse_object(data: bytes, *, name: str) -> dict[str, Any]:
    """Return the JSON object in `data`. The caller must bound its length: parsing takes up to 30 times as much memory.

    Raises CorruptFile for anything that is not an object or no text, duplicate keys, NaN, integers of more
    than 100 digits, half a surrogate pair, and nesting deeper than Python's recursion limit.
    """
    try:
        text = decode_text(data, name)
        value = json.loads(text, parse_int=_integer, parse_constant=_no_constant, object_pairs_hook=_unique)
    except NotText as error:
        raise CorruptFile(f"{name} is corrupt", why=f"its JSON is wrong: {error.why}") from None
    except RecursionError:
        raise CorruptFile(f"{name} is corrupt", why="its JSON is nested too deeply") from None
    except ValueError as error:
        raise CorruptFile(f"{name} is corrupt", why=f"its JSON is wrong: {error}") from None
    if not isinstance(value, dict):
        raise CorruptFile(f"{name} is corrupt", why=f"its JSON is a {type(value).__name__}, not an object")
    if _has_half_a_pair(data, value):
        raise CorruptFile(f"{name} is corrupt", why="its JSON escapes half a surrogate pair, which is not a character")
    return value


def _has_half_a_pair(data: bytes, value: object) -> bool:
    r"""Whether some text cannot be encoded as UTF-8; only an escape such as \ud800 can cause that."""
    if b"\\ud" not in data and b"\\uD" not in data:
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _integer(digits: str) -> int:
    if len(digits) > _MAX_INTEGER_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} appears twice")
        found[key] = value
    return found
