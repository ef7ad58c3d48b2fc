"""Lists in OpenAI's form, a page at a time.

listed([{"id": "file-1", "created_at": 3}], request.query_params)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.serve.http.problems import Problem

MOST, USUAL = 100, 20


def listed(
    items: Sequence[Mapping[str, Any]], asked: Mapping[str, str], *, usual: int = USUAL, most: int = MOST
) -> dict[str, Any]:
    """The page that `limit`, `order`, `after` and `before` name; the newest first.

    Raises:
        Problem: `limit` is no number, or `order` none.
    """
    limit = number(asked, "limit", usual, most)
    order = asked.get("order", "desc")
    if order not in ("asc", "desc"):
        raise Problem(400, "order: asc or desc", code="bad-field", field="order")
    ordered = sorted(items, key=lambda each: (each["created_at"], each["id"]), reverse=order == "desc")
    ids = [each["id"] for each in ordered]
    begin = ids.index(asked["after"]) + 1 if asked.get("after") in ids else 0
    end = ids.index(asked["before"]) if asked.get("before") in ids else len(ids)
    rest = ordered[begin:end]
    page = rest[:limit]
    edges = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": list(page), **edges, "has_more": len(rest) > limit}


def number(asked: Mapping[str, str], name: str, usual: int, most: int) -> int:
    """A number from 1 to `most` of a query; a larger one is as good as `most`."""
    given = asked.get(name)
    if given is None:
        return usual
    if not (given.isascii() and given.isdecimal() and len(given) < 10 and int(given)):
        raise Problem(400, f"{name}: {given[:20]!r} is no number from 1", code="bad-field", field=name)
    return min(int(given), most)
