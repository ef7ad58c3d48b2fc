"""HTML: headings, paragraphs, lists, tables and preformatted text; scripts, menus and what is hidden are left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from edgellm.documents.elements import Element, Kind, row

_SKIPPED = frozenset(
    {"script", "style", "noscript", "template", "head", "nav", "svg", "math", "iframe", "object", "form", "select"}
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = frozenset(
    {"p", "div", "section", "article", "main", "header", "footer", "blockquote", "figure", "figcaption", "dl", "dt",
     "dd", "ul", "ol", "li", "address", "details", "summary", "body", "html", "aside", "fieldset", "center", "hr"}
)  # fmt: skip
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d])|opacity\s*:\s*0(?![.\d])")
MOST_DEPTH = 200


def read(data: bytes, encoding: str | None = None) -> Iterator[Element]:
    """The elements of a page; `encoding` is what it says itself unless given."""
    from lxml import html

    if encoding is not None:
        data, encoding = data.decode(encoding, "replace").encode(), "utf-8"
    parser = html.HTMLParser(encoding=encoding, no_network=True, remove_comments=True, remove_pis=True)
    root = html.document_fromstring(data, parser=parser)
    return _Walk().read(root)


class _Walk:
    """Collects running text until an element begins or ends."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._kind: Kind = "text"
        self._list_depth = 0

    def read(self, root: Any) -> Iterator[Element]:
        yield from self._visit(root, 0)
        yield from self._flush()

    def _visit(self, node: Any, depth: int) -> Iterator[Element]:
        tag = node.tag if isinstance(node.tag, str) else ""
        if not tag or tag in _SKIPPED or _is_hidden(node):
            # What stands around it is not one text: a quotation must not run across what was left out.
            yield from self._flush()
            return
        if depth > MOST_DEPTH:
            self._text.append(node.text_content())
            return
        if tag in _HEADINGS:
            yield from self._flush()
            if text := _words(node.text_content()):
                yield Element("heading", text.rstrip("¶# "), level=_HEADINGS[tag])
        elif tag == "pre":
            yield from self._flush()
            if text := node.text_content().strip("\n").rstrip():
                yield Element("code", text)
        elif tag == "table" and not node.xpath(".//table"):
            yield from self._flush()
            yield from _table(node)
        elif tag == "br":
            self._text.append("\n")
        elif tag in ("ul", "ol", "dl") and not self._list_depth:
            yield from self._flush()
            self._kind, self._list_depth = "list", 1
            yield from self._children(node, depth)
            yield from self._flush()
            self._kind, self._list_depth = "text", 0
        elif tag in ("li", "dt", "dd") or (tag in _BLOCKS and self._list_depth):
            self._text.append("\n- " if tag == "li" else "\n")
            yield from self._children(node, depth)
        elif tag in _BLOCKS:
            yield from self._flush()
            yield from self._children(node, depth)
            yield from self._flush()
        else:
            yield from self._children(node, depth)

    def _children(self, node: Any, depth: int) -> Iterator[Element]:
        self._text.append(node.text or "")
        for child in node:
            yield from self._visit(child, depth + 1)
            self._text.append(child.tail or "")

    def _flush(self) -> Iterator[Element]:
        lines = [_words(line) for line in re.split(r"\n(?=- )|\n\n", "".join(self._text).replace("\r", ""))]
        self._text.clear()
        if text := "\n".join(line for line in lines if line not in ("", "-")):
            yield Element(self._kind, text)


def _table(node: Any) -> Iterator[Element]:
    rows = [
        row([_words(cell.text_content()) for cell in line.xpath("./td|./th")])
        for line in node.xpath("./tr|./thead/tr|./tbody/tr|./tfoot/tr")
        if not _is_hidden(line)
    ]
    caption = " ".join(_words(each.text_content()) for each in node.xpath("./caption"))
    if caption:
        yield Element("text", caption)
    if rows := [each for each in rows if each]:
        first = node.xpath("(.//tr)[1]")[0]
        yield Element("table", "\n".join(rows), has_header=bool(first.xpath("./th")) or len(rows) > 2)


def _is_hidden(node: Any) -> bool:
    style = (node.get("style") or "").lower()
    return node.get("hidden") is not None or node.get("aria-hidden") == "true" or bool(_HIDDEN.search(style))


def _words(text: str) -> str:
    return " ".join(text.split())
