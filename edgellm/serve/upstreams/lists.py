"""Lists of models, merged from all upstreams: a model stands once, with the shortest context that a request may get.

data = await merged(fleet, "/v1/models")
"""

from __future__ import annotations

import asyncio
from typing import Any

from edgellm.serve.upstreams.fleet import Fleet
from edgellm.serve.upstreams.link import Lost
from edgellm.serve.upstreams.member import Member

# The lists of all protocols: where the entries are, and the field that names one.
LISTS = {
    "/v1/models": ("data", "id"),
    "/api/tags": ("models", "name"),
    "/api/ps": ("models", "name"),
    "/api/v0/models": ("data", "id"),
    "/api/v1/models": ("models", "key"),
}
# What protocols call the context of a request.
CONTEXTS = ("max_model_len", "n_ctx", "max_context_length", "loaded_context_length", "context_length")
MOST_ENTRIES = 4096


async def merged(fleet: Fleet, path: str) -> dict[str, Any]:
    """The list at a path; upstreams that do not answer, or not with a list, are left out."""
    key, name = LISTS[path]
    answers = await asyncio.gather(*(_asked(member, path) for member in fleet.up))
    found: dict[str, dict[str, Any]] = {}
    rest: dict[str, Any] = {}
    for answer in answers:
        entries = answer.get(key)
        if not isinstance(entries, list):
            continue
        rest = rest or {each: value for each, value in answer.items() if each != key}
        for entry in entries[:MOST_ENTRIES]:
            if isinstance(entry, dict) and isinstance(entry.get(name), str):
                known = found.setdefault(entry[name], entry)
                if known is not entry:
                    _lower(known, entry)
    return {**({"object": "list"} if key == "data" else {}), **rest, key: list(found.values())}


async def _asked(member: Member, path: str) -> dict[str, Any]:
    try:
        answer = await member.link.json(path)
    except Lost:
        return {}
    return answer if isinstance(answer, dict) else {}


def _lower(known: dict[str, Any], other: dict[str, Any]) -> None:
    """Lower the contexts of an entry to those of another server's, one level deep."""
    for field, value in other.items():
        mine = known.get(field)
        if field in CONTEXTS and isinstance(value, int) and isinstance(mine, int):
            known[field] = min(mine, value)
        elif field == "meta" and isinstance(value, dict) and isinstance(mine, dict):
            _lower(mine, value)
            mine["loaded"] = bool(mine.get("loaded")) or bool(value.get("loaded"))
