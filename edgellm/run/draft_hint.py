"""What an answer with a JSON schema may look like: two made-up answers, which drafts search beside the prompt.

draft_hint('{"type": "object", "properties": {"name": {"type": "string"}}}')  ->  '{"name":""}\n{\n  "name": ""\n}\n'

The keys of an object come as the schema has them, so its skeleton can be drafted although no text has it yet. The
grammar and the sampler still choose every token: a skeleton that is wrong costs a little time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

# A deeper or larger skeleton would be mostly guesses.
MOST_DEPTH, MOST_CHARACTERS = 8, 4000
VALUES: Mapping[str, Any] = {"string": "", "integer": 0, "number": 0.5, "boolean": True, "null": None}


def draft_hint(schema: str | None) -> str:
    """Two skeletons of a JSON schema's answers, a compact one and an indented one; empty if it says too little."""
    if schema is None:
        return ""
    try:
        root = json.loads(schema)
        made_up = _made_up(root, root, MOST_DEPTH)
        if not isinstance(made_up, (dict, list)) or not made_up:
            return ""
        compact, spaced = json.dumps(made_up, separators=(",", ":")), json.dumps(made_up, indent=2)
    except (ValueError, RecursionError):
        return ""
    return f"{compact}\n{spaced}\n" if len(compact) + len(spaced) <= MOST_CHARACTERS else ""


def _made_up(schema: Any, root: Any, depth: int) -> Any:
    """A value that a schema may mean."""
    if not isinstance(schema, dict) or depth == 0:
        return ""
    if isinstance(reference := schema.get("$ref"), str):
        return _made_up(_resolve(reference, root), root, depth - 1)
    if "const" in schema:
        return schema["const"]
    for name in ("enum", "anyOf", "oneOf", "allOf"):
        if isinstance(several := schema.get(name), list) and several:
            return several[0] if name == "enum" else _made_up(several[0], root, depth - 1)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if isinstance(properties := schema.get("properties"), dict) and kind in ("object", None):
        return {name: _made_up(each, root, depth - 1) for name, each in properties.items()}
    if kind == "array":
        # Two items: what stands between them is a part of the skeleton.
        return [_made_up(schema.get("items"), root, depth - 1)] * 2
    return VALUES.get(kind, "") if isinstance(kind, str) else ""


def _resolve(reference: str, root: Any) -> Any:
    """The schema that a reference within the document names; None if there is none."""
    found = root
    for name in reference.removeprefix("#").strip("/").split("/") if reference.startswith("#") else ["\0"]:
        if name:
            found = found.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found
