"""Office files: DOCX, PPTX and EPUB."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import unquote
from xml.etree import ElementTree

from edgellm.documents.elements import Element, Note, Part, row
from edgellm.documents.readers import html
from edgellm.documents.readers.xml import refuse_entities
from edgellm.errors import CorruptFile

MOST_XML = 16 << 20
_HEADING = re.compile(r"(?:heading|überschrift|titre|标题)\s*(\d)", re.IGNORECASE)


def read_docx(file: IO[bytes]) -> Iterator[Part]:
    """The paragraphs and tables of a document in order; a paragraph that is hidden text is left out."""
    import docx
    from docx.table import Table

    document = docx.Document(file)
    items: list[str] = []
    for part in document.iter_inner_content():
        if isinstance(part, Table):
            yield from _items(items)
            yield from _table(part)
            continue
        text = "".join(run.text for run in part.runs if not run.font.hidden) if part.runs else part.text
        text = "\n".join(" ".join(line.split()) for line in text.split("\n")).strip()
        style = (part.style.name or "") if part.style is not None else ""
        if not text:
            continue
        if (found := _HEADING.match(style)) or style == "Title":
            yield from _items(items)
            yield Element("heading", text, level=int(found[1]) if found else 1)
        elif style.startswith("List"):
            items.append(f"- {text}")
        else:
            yield from _items(items)
            yield Element("code" if "code" in style.lower() or "Preformatted" in style else "text", text)
    yield from _items(items)


def _items(items: list[str]) -> Iterator[Element]:
    if items:
        yield Element("list", "\n".join(items))
        items.clear()


def _table(table: Any) -> Iterator[Element]:
    rows = []
    for line in table.rows:
        # A cell that spans columns comes once for each of them.
        cells = {id(cell._tc): cell.text for cell in line.cells}
        rows.append(row(list(cells.values())))
    if rows := [each for each in rows if each]:
        yield Element("table", "\n".join(rows))


def read_pptx(file: IO[bytes]) -> Iterator[Part]:
    """The slides of a presentation, with tables and notes; a slide counts as a page."""
    from pptx import Presentation

    for number, slide in enumerate(Presentation(file).slides, 1):
        title = slide.shapes.title
        if title is not None and title.has_text_frame and title.text_frame.text.strip():
            yield Element("heading", " ".join(title.text_frame.text.split()), level=1, page=number)
        for shape in slide.shapes:
            if shape.has_text_frame and shape != title and (text := shape.text_frame.text.strip()):
                yield Element("text", text.replace("\v", "\n"), page=number)
            if getattr(shape, "has_table", False):
                rows = [row([cell.text for cell in line.cells]) for line in shape.table.rows]
                yield Element("table", "\n".join(filter(None, rows)), page=number)
        if slide.has_notes_slide and (text := slide.notes_slide.notes_text_frame.text.strip()):
            yield Element("text", text, page=number)


def read_epub(file: IO[bytes]) -> Iterator[Part]:
    """The chapters of a book in their order."""
    with zipfile.ZipFile(file) as archive:
        if "META-INF/encryption.xml" in archive.namelist():
            raise CorruptFile("the EPUB is protected", why="its chapters are encrypted")
        container = _xml(archive, "META-INF/container.xml")
        package_at = next((each.get("full-path") for each in container.iter() if each.tag.endswith("rootfile")), None)
        if not package_at:
            raise CorruptFile("the EPUB is damaged", why="it names no package")
        package = _xml(archive, package_at)
        base = posixpath.dirname(package_at)
        places = {
            each.get("id"): posixpath.normpath(posixpath.join(base, unquote(each.get("href", ""))))
            for each in package.iter()
            if each.tag.endswith("}item")
        }
        spine = [places.get(each.get("idref")) for each in package.iter() if each.tag.endswith("}itemref")]
        for place in dict.fromkeys(spine):  # each once, though a hostile book names one a million times
            if place is None:
                continue
            try:
                yield from html.read(_bytes(archive, place))
            except KeyError:
                yield Note(f"the chapter {place} is missing")


def _xml(archive: zipfile.ZipFile, name: str) -> ElementTree.Element:
    data = _bytes(archive, name)
    refuse_entities(io.BytesIO(data), name, doctype=False)
    return ElementTree.fromstring(data)  # noqa: S314, without entities


def _bytes(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > MOST_XML:
        raise CorruptFile("the EPUB is refused", why=f"{name} is larger than {MOST_XML >> 20} MB")
    return archive.read(name)
