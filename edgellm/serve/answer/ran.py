"""The calls that a server ran for an answer, as clients see them: the field `edgellm.tools`, and cited addresses.

described(block)  ->  {"name": "calculator", "arguments": "{...}", "output": "4", "seconds": 0.001}
for source, begin, end in cited(text, blocks): ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from edgellm.run.events import Returned, ToolSource
from edgellm.serve.answer.whole import Block

MOST_CITED = 20


def described(returned: Returned) -> dict[str, Any]:
    """A call and what it returned; of sources on this machine only the title, because clients do not see its files."""
    sources = [{"title": each.title, **({"url": each.place} if is_address(each) else {})} for each in returned.sources]
    return {
        "id": returned.id, "name": returned.name, "arguments": returned.arguments, "output": returned.text,
        "error": returned.error, "seconds": round(returned.seconds, 3), "sources": sources,
        "notes": list(returned.notes),
    }  # fmt: skip


def is_address(source: ToolSource) -> bool:
    """Whether a source is a page that anybody can open."""
    return source.place.startswith(("http://", "https://"))


def cited(text: str, blocks: Iterable[Block]) -> Iterator[tuple[ToolSource, int, int]]:
    """The pages that an answer rests on, each with the part of the text that names it.

    That is where its address or its number in brackets stands; the end of the text for one that is not named.
    """
    results = [block.returned for block in blocks if block.returned is not None and not block.returned.error]
    pages = {each.place: each for result in results for each in result.sources if is_address(each)}
    for number, source in enumerate(list(pages.values())[:MOST_CITED], 1):
        named = next((each for each in (source.place, f"[{number}]") if each in text), "")
        begin = text.index(named) if named else len(text)
        yield source, begin, begin + len(named)
