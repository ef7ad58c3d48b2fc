"""The tool `wikipedia`: articles of a ZIM file on this machine, found by the archive's own full-text index.

wikipedia(Path("wikipedia_en_all_mini.zim")).call({"query": "Eiffel Tower"})

Such files come from Kiwix. `libzim` (`edgellm[tools]`) reads them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.errors import CorruptFile, FileAccessError, UsageError
from edgellm.run.events import ToolSource
from edgellm.tools.tool import Risk, Tool, ToolResult
from edgellm.tools.web.download import Page
from edgellm.tools.web.readable import readable

MOST_ARTICLES = 2
MOST_ARTICLE = 4 << 20
INSTALL = "pip install 'edgellm[tools]'"
PARAMETERS = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "minLength": 1, "maxLength": 100, "description": "the name of a person or thing"}
    },
    "required": ["query"],
    "additionalProperties": False,
}
EXAMPLES = tuple(
    (question, {"query": query})
    for question, query in (
        ("Who painted Guernica?", "Guernica"),
        ("How high is the Eiffel Tower?", "Eiffel Tower"),
        ("When was Marie Curie born?", "Marie Curie"),
        ("What is the capital of Mongolia?", "Mongolia"),
        ("What is photosynthesis?", "photosynthesis"),
        ("Tell me about Leonardo da Vinci.", "Leonardo da Vinci"),
        ("Who invented the telephone?", "telephone"),
        ("Which animals live in Australia?", "Australia"),
        ("What is the chemical symbol of iron?", "iron"),
        ("Who composed the Ninth Symphony?", "Ninth Symphony"),
        ("What is the longest river of Asia?", "longest river of Asia"),
        ("Who founded Microsoft?", "Microsoft"),
    )
)
SIGNS = r"(?i:\bwikipedia\b)|维基百科"


class ZimArchive:
    """A ZIM file; opened by the first search, as opening a large one takes a moment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._archive: Any = None
        self._lock = threading.Lock()

    def _opened(self) -> Any:
        try:
            from libzim.reader import Archive
        except ImportError as error:
            raise UsageError("wikipedia needs one more package", why=str(error), hint=INSTALL) from error
        if not self._path.is_file():
            raise FileAccessError(f"there is no file {self._path}", hint="a .zim file, from https://library.kiwix.org")
        if self._archive is None:
            try:
                self._archive = Archive(self._path)
            except RuntimeError as error:
                raise CorruptFile(f"{self._path} is no ZIM file", why=str(error)[:200]) from error
        return self._archive

    def find(self, query: str, most: int) -> list[tuple[str, str, str]]:
        """The title, path and text of the articles that fit best; by title first, then by the full-text index.

        Raises:
            UsageError, FileAccessError, CorruptFile: the file cannot be read.
        """
        with self._lock:
            archive = self._opened()
            found: dict[str, tuple[str, str, str]] = {}
            try:
                for path in self._paths(archive, query, most):
                    entry = archive.get_entry_by_path(path)
                    item = entry.get_item()  # follows redirects
                    if item.path in found or item.size > MOST_ARTICLE or len(found) == most:
                        continue
                    media, _, _ = item.mimetype.partition(";")
                    page = Page(f"zim:{item.path}", media, "utf-8", bytes(item.content), False)
                    found[item.path] = (item.title, item.path, readable(page).text)
            except (RuntimeError, KeyError) as error:
                raise CorruptFile(f"{self._path} is damaged", why=str(error)[:200]) from error
        return list(found.values())

    @staticmethod
    def _paths(archive: Any, query: str, most: int) -> list[str]:
        from libzim.search import Query, Searcher
        from libzim.suggestion import SuggestionSearcher

        titles = list(SuggestionSearcher(archive).suggest(query).getResults(0, 2 * most))
        same = [path for path in titles if archive.get_entry_by_path(path).title.casefold() == query.casefold()]
        texts = []
        if archive.has_fulltext_index:
            texts = list(Searcher(archive).search(Query().set_query(query)).getResults(0, 4 * most))
        return list(dict.fromkeys([*same, *texts, *titles]))


def wikipedia(path: Path) -> Tool:
    """The tool for one ZIM file."""
    archive = ZimArchive(path)

    def call(arguments: Mapping[str, Any]) -> ToolResult:
        query = str(arguments["query"])
        found = archive.find(query, MOST_ARTICLES)
        if not found:
            return ToolResult(f"There is no article about {query!r}.", error=True)
        text = "\n\n".join(f"[{n}] {title}\n{text}" for n, (title, _, text) in enumerate(found, 1))
        return ToolResult(text, tuple(ToolSource(title, f"{path.name}/{place}") for title, place, _ in found))

    description = "Looks up a person, place or thing in an encyclopedia on this machine."
    return Tool("wikipedia", description, PARAMETERS, Risk.HERE, call, examples=EXAMPLES, signs=SIGNS)
