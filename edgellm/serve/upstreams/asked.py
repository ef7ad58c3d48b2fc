"""What a front must know of a request to choose a server: the model, and the prompt as far as it may be cached.

asked = RequestedModel.of(body)
asked.model, asked.chain.n_bytes

It reads the bodies of all protocols by the names of their fields and checks nothing: the server behind does that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from edgellm.models.local.store import LATEST
from edgellm.serve.upstreams.prefixes import MOST_PIECES, PIECE, Chain

MOST_NAME = 200
# In the order in which templates put them into a prompt.
BEFORE = ("tools", "system", "instructions")
PROMPTS = ("messages", "input", "prompt")
# Marks that clients move from message to message.
MOVING = frozenset({"cache_control"})
DEEPEST = 32


@dataclass(frozen=True, slots=True)
class RequestedModel:
    """The model that a request names, None for any, and its prompt."""

    model: str | None
    chain: Chain

    @classmethod
    def of(cls, body: bytes, name: str | None = None) -> RequestedModel:
        """Read a body, empty or not JSON as it may be; `name` is a model that the path names."""
        try:
            data = from_json(body) if body else None
        except ValueError:
            data = None
        if not isinstance(data, dict):
            return cls(_model(name), Chain())
        parts: list[bytes] = []
        question: int | None = None
        for part, is_question in _parts(data):
            if is_question and question is None:
                question = len(parts)
            parts.append(part)
            if len(parts) >= MOST_PIECES:
                break
        found = name or data.get("model") or data.get("name")
        return cls(_model(found), Chain.of(parts, question or 0))


def _model(name: Any) -> str | None:
    """The name of a model, cut where no model has so long a one; None where nobody is named."""
    return name.removesuffix(LATEST)[: MOST_NAME + 1] if isinstance(name, str) and name else None


def _parts(data: Mapping[str, Any]) -> Iterator[tuple[bytes, bool]]:
    """The parts of a prompt in order, and whether each is something that a user says."""
    for key in BEFORE:
        if data.get(key):
            yield _bytes(data[key]), False
    for key in PROMPTS:
        value = data.get(key)
        if isinstance(value, list):
            for each in value:
                is_system = isinstance(each, dict) and each.get("role") in ("system", "developer")
                yield _bytes(each), not is_system
        elif value:
            yield _bytes(value), True


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value[: MOST_PIECES * PIECE].encode("utf-8", "replace")
    text = json.dumps(_still(value), ensure_ascii=False, separators=(",", ":"))
    return text[: MOST_PIECES * PIECE].encode("utf-8", "replace")


def _still(value: Any, depth: int = 0) -> Any:
    """A value without what moves; its keys in order."""
    if depth > DEEPEST:
        return None
    if isinstance(value, dict):
        return {key: _still(value[key], depth + 1) for key in sorted(value) if key not in MOVING}
    return [_still(each, depth + 1) for each in value] if isinstance(value, list) else value
