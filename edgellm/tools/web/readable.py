"""A downloaded page as readable text, in a process of its own, which a hostile page may crash, fill or stop.

    readable(page)  ->  ReadablePage("Bridges", "The bridge was built in 1932. ...", "trafilatura")

trafilatura (`edgellm[tools]`) keeps the article and leaves menus out. Without it the text of all blocks is kept.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from html.parser import HTMLParser

from edgellm.errors import CorruptFile
from edgellm.machine.child import Child, ChildFailed, module, open_answers, requests
from edgellm.tools.web.download import Page

SECONDS = 10.0
MOST_MEMORY = 1 << 30
MOST_TEXT = 200_000
HTML = ("text/html", "application/xhtml+xml")
TEXT = ("text/", "application/json", "application/xml", "application/rss", "application/atom")
_SKIPPED = frozenset({"script", "style", "noscript", "template", "nav", "svg", "iframe", "select", "head"})
_BLOCKS = frozenset(
    {"p", "div", "section", "article", "main", "header", "footer", "blockquote", "li", "ul", "ol", "table", "tr", "br",
     "h1", "h2", "h3", "h4", "h5", "h6", "pre", "td", "th", "dd", "dt"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReadablePage:
    """The title and the text of a page; `by` is what read it."""

    title: str
    text: str
    by: str


def readable(page: Page) -> ReadablePage:
    """The page as text.

    Raises:
        CorruptFile: it is no text, or reading it failed or took too long.
    """
    if page.media_type not in HTML:
        if not page.media_type.startswith(TEXT):
            raise CorruptFile("the page is no text", why=f"it is {page.media_type[:60]}", hint="a page with text")
        return ReadablePage("", page.text[:MOST_TEXT], "plain")
    with Child(module("edgellm.tools.web.readable"), name="the page's reader") as child:
        child.send({"html": page.text, "url": page.url})
        try:
            answer = child.receive(SECONDS)
        except ChildFailed as failed:
            raise CorruptFile("the page cannot be read", why=failed.why) from failed
    return ReadablePage(answer["title"], answer["text"], answer["by"])


def main() -> None:
    """In the child: read one page."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(SECONDS) + 5, int(SECONDS) + 5))
    answer = open_answers()
    for request in requests():
        title, text, by = _read(request["html"], request["url"])
        answer({"title": title[:300], "text": text[:MOST_TEXT].encode("utf-8", "replace").decode(), "by": by})


def _read(html: str, url: str) -> tuple[str, str, str]:
    if importlib.util.find_spec("trafilatura") is not None:
        import trafilatura

        found = trafilatura.bare_extraction(
            html, url=url, include_comments=False, include_tables=True, favor_recall=True, with_metadata=True
        )
        page = found.as_dict() if found is not None and not isinstance(found, dict) else found or {}
        if text := str(page.get("text") or "").strip():
            return str(page.get("title") or ""), text, "trafilatura"
    plain = _PlainText()
    plain.feed(html)
    plain.close()
    return plain.title, plain.text, "plain"


class _PlainText(HTMLParser):
    """The text of all blocks, without scripts and menus."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._skipped: list[str] = []
        self._in_title = False
        self.title = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin an element."""
        if tag == "title" and not self.title:
            self._in_title = True
        elif tag in _SKIPPED:
            self._skipped.append(tag)
        elif tag in _BLOCKS:
            self._parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """End an element; an end without a beginning ends nothing."""
        self._in_title = self._in_title and tag != "title"
        if tag in self._skipped:
            del self._skipped[self._skipped.index(tag) :]
        elif tag in _BLOCKS:
            self._parts.append("\n")

    def handle_data(self, data: str) -> None:
        """Take text."""
        if self._in_title:
            self.title += data
        elif not self._skipped:
            self._parts.append(data)

    @property
    def text(self) -> str:
        """All text, a block a line."""
        lines = (re.sub(r"[ \t\r\f\v]+", " ", line).strip() for line in "".join(self._parts).split("\n"))
        return "\n".join(filter(None, lines))


if __name__ == "__main__":
    main()
