"""The tool `documents`: passages of the user's own documents, from the collections of `edgellm docs`.

documents(search, ["manuals"]).call({"query": "warranty"})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgellm.documents.search import Passage
from edgellm.run.events import ToolSource
from edgellm.tools.tool import Risk, Tool, ToolResult

MOST_PASSAGES = 4
PARAMETERS = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "minLength": 1, "maxLength": 300, "description": "what to look for, in words"}
    },
    "required": ["query"],
    "additionalProperties": False,
}
EXAMPLES = tuple(
    (question, {"query": query})
    for question, query in (
        ("How long is the warranty?", "length of the warranty"),
        ("What do my documents say about holidays?", "holidays"),
        ("Find the section about safety in the manual.", "safety"),
    )
)
SIGNS = r"(?i:\bmy (?:documents|files|notes|manuals?)\b|\bthe (?:documents|manuals?|handbook)\b)|我的(?:文件|文档)|手册"


def documents(search: Callable[[str, int], Sequence[Passage]], names: Sequence[str]) -> Tool:
    """The tool; `search` finds passages in the collections of these names."""

    def call(arguments: Mapping[str, Any]) -> ToolResult:
        query = str(arguments["query"])
        found = search(query, MOST_PASSAGES)
        if not found:
            return ToolResult(f"The documents say nothing about {query!r}.", error=True)
        lines = [f"[{n}] {_place(each)}\n{each.text}" for n, each in enumerate(found, 1)]
        return ToolResult("\n\n".join(lines), tuple(ToolSource(_place(each), each.path) for each in found))

    description = f"Searches the user's own documents ({', '.join(names)[:200]}) and returns passages."
    return Tool("documents", description, PARAMETERS, Risk.HERE, call, examples=EXAMPLES, signs=SIGNS)


def _place(passage: Passage) -> str:
    return f"{passage.file}, page {passage.page}" if passage.page else passage.file
