"""PDF by PDFium: text page by page, with the outline's headings. Scripts never run; a page that is an image says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgellm.documents.elements import Element, Note, Part
from edgellm.documents.readers.text import heading_level
from edgellm.errors import CorruptFile

MOST_PAGES = 20_000
MOST_HEADING = 60
IMAGE = "only an image; this makes it text: ocrmypdf IN.pdf OUT.pdf"
_CJK = "\u3000-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
_SPREAD = re.compile(rf"(?<=[{_CJK}])[ \t]+(?=[{_CJK}])")
# PDFium marks a word that was divided at the end of a line.
_DIVIDED = re.compile(r"[\ufffe\x02]\r?\n?")

# A line is as wide as its column if the next word would have made it wider than this part of the page's wide lines;
# which those are; and the width below which they tell nothing.
FULL, WIDE, LEAST_WIDTH = 0.9, 0.8, 30
_ENDED = re.compile(r"[.!?:;][\"')\]]?$")
_LETTER = re.compile(r"[^\W\d_]")


def read(path: Path) -> Iterator[Part]:
    """The pages of a document.

    Raises:
        CorruptFile: it is encrypted, damaged, or no PDF.
    """
    import pypdfium2
    import pypdfium2.raw as raw

    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if raw.FPDF_GetLastError() == raw.FPDF_ERR_PASSWORD or "password" in str(error).lower():
            raise CorruptFile("the PDF is encrypted", why="it opens only with a password") from None
        raise CorruptFile("the PDF is damaged", why="PDFium cannot open it") from None
    try:
        yield from _pages(document)
    finally:
        document.close()


def _pages(document: object) -> Iterator[Part]:
    import pypdfium2

    headings: dict[int, list[tuple[int, str]]] = {}
    for mark in document.get_toc(max_depth=6):  # type: ignore[attr-defined]
        place = mark.get_dest()
        index = place.get_index() if place else None
        if index is not None and mark.get_title():
            headings.setdefault(index, []).append((mark.level + 1, " ".join(mark.get_title().split())))
    without: dict[str, list[int]] = {}
    n_pages = len(document)  # type: ignore[arg-type]
    for index in range(min(n_pages, MOST_PAGES)):
        try:
            page = document[index]  # type: ignore[index]
            text = page.get_textpage().get_text_bounded()
        except pypdfium2.PdfiumError:
            without.setdefault("damaged", []).append(index + 1)
            continue
        text = _DIVIDED.sub("", text).replace("\r\n", "\n").replace("\0", "")
        if not text.strip():
            without.setdefault(IMAGE if _has_image(page) else "empty", []).append(index + 1)
        else:
            yield from _blocks(_SPREAD.sub("", text), index + 1, headings.get(index, []))
        page.close()
    for reason, pages in without.items():
        yield Note(f"page {pages[0]} is {reason}" if len(pages) == 1 else f"pages {_ranges(pages)} are {reason}")
    if n_pages > MOST_PAGES:
        yield Note(f"pages after {MOST_PAGES:,} are left out")


def _has_image(page: Any) -> bool:
    import pypdfium2.raw as raw

    return next(page.get_objects(filter=[raw.FPDF_PAGEOBJ_IMAGE], max_depth=4), None) is not None


def _ranges(numbers: list[int]) -> str:
    """Numbers in order as text: 1-3, 8."""
    begins = [each for at, each in enumerate(numbers) if not at or numbers[at - 1] != each - 1]
    ends = [each for at, each in enumerate(numbers) if at == len(numbers) - 1 or numbers[at + 1] != each + 1]
    parts = [str(first) if first == last else f"{first}-{last}" for first, last in zip(begins, ends, strict=True)]
    return ", ".join(parts)


def _blocks(text: str, page: int, headings: list[tuple[int, str]]) -> Iterator[Element]:
    """A page's text, cut where a heading of the outline stands in it; those that are not found come first."""
    waiting = {_squashed(title): (level, title) for level, title in headings}
    found = {_squashed(line) for line in text.split("\n")} & waiting.keys()
    for key, (level, title) in waiting.items():
        if key not in found:
            yield Element("heading", title, level=level, page=page)
    lines: list[str] = []
    before, width = "", _width(text)
    for raw in text.split("\n"):
        line = raw.strip()
        key, goes_on = _squashed(line), _goes_on(before, line, width)
        before = line
        if key in waiting and key in found:
            level, title = waiting[key]
        elif not headings and not (goes_on and len(line) > width / 2) and (level := _numbered_heading(line)):
            title = line
        elif goes_on and _is_lower(line) and lines:
            lines[-1] += f" {line}"
            continue
        else:
            lines.append(raw.rstrip())
            continue
        if any(lines):
            yield Element("text", "\n".join(lines).strip("\n"), page=page)
        yield Element("heading", title, level=level, page=page)
        lines = []
    if any(lines):
        yield Element("text", "\n".join(lines).strip("\n"), page=page)


def _width(text: str) -> float:
    """The characters of a page's wide lines."""
    lengths = sorted(len(line.strip()) for line in text.split("\n") if line.strip())
    return lengths[int(WIDE * (len(lengths) - 1))] if lengths else 0


def _goes_on(line: str, following: str, width: float) -> bool:
    """Whether a line ends only because the next word found no room in it."""
    word = following.partition(" ")[0]
    is_full = len(line) + 1 + len(word) >= FULL * width >= FULL * LEAST_WIDTH
    return bool(line and word) and is_full and not _ENDED.search(line)


def _numbered_heading(line: str) -> int:
    """The level of a line that is a heading by its form; "15 minutes later" in the middle of a sentence is none."""
    return 0 if len(line) >= MOST_HEADING or _is_lower(line) else heading_level(line)


def _is_lower(line: str) -> bool:
    """Whether the first letter of a line is a small one."""
    letter = _LETTER.search(line)
    return letter is not None and letter[0].islower()


def _squashed(line: str) -> str:
    return "".join(line.split()).casefold()
