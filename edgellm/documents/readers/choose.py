"""Which reader a file needs: its first bytes decide, then the text itself, and its name only last.

for part in read(Path("manual.pdf")): ...
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

from edgellm.documents.elements import Element, Note, Part
from edgellm.documents.readers import html, mail, markdown, sheets, source, text
from edgellm.documents.readers.xml import refuse_entities
from edgellm.errors import CorruptFile, EdgellmError, UsageError
from edgellm.text import encoding_of

MOST_BYTES = 512 << 20
TOO_LARGE = f"it is larger than {MOST_BYTES >> 20} MB"
# Of HTML, mail and other forms that are read whole.
MOST_WHOLE = 64 << 20
# An archive may unpack to so many bytes, and to so many times its size.
MOST_UNPACKED = 512 << 20
MOST_RATIO = 300
MOST_MEMBERS = 20_000
START = 1 << 16
# Characters of a line; a longer one comes in pieces.
MOST_LINE = 20_000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The packages of the extra, for the Python that runs us: edgellm itself may be a checkout.
EXTRA = f"{sys.executable} -m pip install charset-normalizer lxml openpyxl pypdfium2 python-docx python-pptx"

_SOURCE = _words(
    "py js ts jsx tsx mjs c h cc cpp hpp cu java kt go rs rb php swift scala sh bash zsh ps1 lua pl r jl sql cs m mm "
    "vb dart zig nim ex exs erl hs ml clj groovy cmake mk"
)
_MARKDOWN = _words("md markdown mdown mkd mdx")
_PAGE = _words("html htm xhtml")
# Encodings of Japanese and Korean that would also decode as Chinese, the letters that only these languages have, and
# the least part of all letters that they are.
_KANA, _HANGUL = re.compile("[\u3041-\u3096]"), re.compile("[\uac00-\ud7a3]")
_LETTERS = {"shift_jis": (_KANA, 0.2), "euc_jp": (_KANA, 0.2), "euc_kr": (_HANGUL, 0.8)}
# Forms that cannot be read, by their first bytes.
_OTHERS = {
    b"\xd0\xcf\x11\xe0": "an old Office file (.doc, .xls, .ppt) or an encrypted one; save it as DOCX, XLSX or PPTX",
    b"{\\rtf": "an RTF file; save it as DOCX",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"BZh": "a bzip2 archive; unpack it first",
    b"\xfd7zXZ": "an xz archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd archive; unpack it first",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"II*\x00": "an image",
    b"MM\x00*": "an image",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"GGUF": "a model",
    b"SQLite format 3": "a database",
}


def read(path: Path) -> Iterator[Part]:
    """The parts of a document.

    Raises:
        CorruptFile: it is damaged, encrypted, hostile, or nothing that is read.
        UsageError: the extra for its form is not installed.
        OSError: it cannot be opened.
    """
    with _opened(path) as file:
        start = file.read(START)
        file.seek(0)
        try:
            yield from _read(path, file, start)
        except (EdgellmError, OSError, MemoryError):
            raise
        except ImportError as error:
            why = f"the package {error.name} is missing"
            raise UsageError(f"{path.name} needs the documents' extra", why=why, hint=EXTRA) from error
        except Exception as error:  # the libraries' own errors on files that are damaged in some new way
            why = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            raise CorruptFile("it is damaged", why=why) from error


def _opened(path: Path) -> IO[bytes]:
    """A regular file: opening a pipe or a device might never return."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CorruptFile("it is not a regular file")
        if status.st_size > MOST_BYTES:
            raise CorruptFile(TOO_LARGE)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _read(path: Path, file: IO[bytes], start: bytes) -> Iterator[Part]:
    if not start.strip(b"\0 \t\r\n\xef\xbb\xbf"):
        raise CorruptFile("it is empty")
    if b"%PDF-" in start[:1024]:
        from edgellm.documents.readers import pdf

        yield from pdf.read(path)
    elif start.startswith(b"PK\x03\x04"):
        yield from _archive(file)(file)
    elif form := next((form for magic, form in _OTHERS.items() if _begins(start, magic)), None):
        raise CorruptFile(f"it is {form}")
    elif start[257:262] == b"ustar":
        raise CorruptFile("it is a tar archive; unpack it first")
    else:
        yield from _read_text(path, file, start)


def _begins(start: bytes, magic: bytes) -> bool:
    """Whether a file begins so; a text may begin with the two letters of a program."""
    return start.startswith(magic) and (len(magic) > 2 or b"\0" in start)


def _archive(file: IO[bytes]) -> Callable[[IO[bytes]], Iterator[Part]]:
    """The reader of a zipped form, once the archive has been measured."""
    from edgellm.documents.readers import office

    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        names = {member.filename for member in members}
        unpacked, packed = sum(each.file_size for each in members), sum(each.compress_size for each in members)
        if len(members) > MOST_MEMBERS or unpacked > MOST_UNPACKED or unpacked > MOST_RATIO * max(packed, 1 << 16):
            raise CorruptFile("it is refused", why=f"{len(members):,} files unpack to {unpacked / 1e6:,.0f} MB")
        if any(member.flag_bits & 1 for member in members):
            raise CorruptFile("it is encrypted", why="it opens only with a password")
        forms: dict[str, Callable[[IO[bytes]], Iterator[Part]]] = {
            "word/document.xml": office.read_docx,
            "xl/workbook.xml": sheets.read_xlsx,
            "ppt/presentation.xml": office.read_pptx,
            "META-INF/container.xml": office.read_epub,
        }
        found = next((form for name, form in forms.items() if name in names), None)
        if found is None:
            if {"mimetype", "content.xml"} <= names:
                raise CorruptFile("it is an OpenDocument file; save it as DOCX, XLSX or PPTX")
            raise CorruptFile("it is an archive; unpack it first")
        if found is not office.read_epub:  # whose chapters may have a type
            for member in members:
                if member.filename.endswith((".xml", ".rels")):
                    with archive.open(member) as stream:
                        refuse_entities(stream, member.filename)
    file.seek(0)
    return found


def _read_text(path: Path, file: IO[bytes], start: bytes) -> Iterator[Part]:
    encoding, is_certain = detected(start if len(start) < START else start[: start.rfind(b"\n") + 1 or START])
    if not is_certain:  # what follows may settle it
        encoding = _whole_encoding(file)
        yield Note(f"its text was read as {encoding}")
    ending = path.suffix.lower().lstrip(".")
    shown = start.decode(encoding, "replace").lstrip("\ufeff \t\r\n")
    first = shown[:1000].lower()
    if first.startswith(("<!doctype html", "<html")) or (ending in _PAGE and "<" in first):
        names_itself = b"charset" in start[:2000] and not encoding.startswith("utf-16")
        yield from html.read(_whole(file), None if names_itself else encoding)
    elif ending in ("eml", "mbox") or _is_mail(first):
        yield from mail.read(_whole(file))
    else:
        lines = _Lines(file, encoding)
        for part in _by_lines(path, ending, shown)(lines):
            yield replace(part, line=0) if lines.has_cut and isinstance(part, Element) else part


def _by_lines(path: Path, ending: str, shown: str) -> Callable[[Iterable[str]], Iterator[Part]]:
    """The reader of a form that is read line by line."""
    if ending in ("csv", "tsv", "tab"):
        return lambda lines: sheets.read_csv(lines, shown)
    if ending in _MARKDOWN:
        return markdown.read
    if ending in _SOURCE or path.name in ("Makefile", "Dockerfile"):
        return source.read
    return text.read


class _Lines:
    """The lines of a text, in constant memory: one without end comes in pieces, and `has_cut` tells from then on."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        self._text = io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="\n")
        self.has_cut = False

    def __iter__(self) -> Iterator[str]:
        try:
            rest = ""
            while line := rest + self._text.readline(MOST_LINE - len(rest)):
                ends = len(line)
                if ends == MOST_LINE:
                    self.has_cut = True
                    ends = line.rfind(" ", MOST_LINE // 2) + 1 or ends  # between words, if there are any
                yield line[:ends]
                rest = line[ends:]
        finally:
            self._text.detach()


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    data = file.read(MOST_WHOLE + 1)
    if len(data) > MOST_WHOLE:
        raise CorruptFile(f"it is larger than {MOST_WHOLE >> 20} MB")
    return data


def _is_mail(start: str) -> bool:
    names = {line.partition(":")[0] for line in start.splitlines()[:30] if ":" in line and not line.startswith(" ")}
    return {"from", "subject", "mime-version"} <= names or {"from", "subject", "message-id"} <= names


def detected(start: bytes) -> tuple[str, bool]:
    """The encoding of a text that begins so, and whether that is certain.

    Raises:
        CorruptFile: it is no text.
    """
    if (marked := encoding_of(start)) != "utf-8":
        return marked, True
    if b"\0" in start:
        found = max(("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"), key=lambda name: _sense(start, name))
        if _sense(start, found) > 0.9:
            return found, True
        raise CorruptFile("it is no text", why="it holds NUL bytes")
    with contextlib.suppress(UnicodeDecodeError):
        start.decode("utf-8")
        return "utf-8-sig", True
    if sum(byte < 32 and byte not in b"\t\n\r\f\x1b\x08" for byte in start) > 0.02 * len(start):
        raise CorruptFile("it is no text", why="it holds control characters")
    return "latin-1", False


def _sense(start: bytes, encoding: str) -> float:
    """Which part of a text, if it is decoded so, are letters, digits, spaces and common marks."""
    try:
        text = start[: len(start) & ~3].decode(encoding)
    except UnicodeDecodeError:
        return 0.0
    good = sum(each.isalnum() or each.isspace() or each in ".,;:!?()-'\"，。、：；！？（）《》" for each in text)
    # Latin letters at the wrong byte are rare ideographs.
    return 0.0 if "\0" in text else good / len(text) - 0.2 * ("\n" not in text and " " not in text)


def _whole_encoding(file: IO[bytes]) -> str:
    """What decodes all of a text that is not UTF-8."""
    file.seek(0)
    data = file.read(4 << 20)
    file.seek(0)
    # In Chinese text nearly all bytes above 0x80 come in pairs; in western text they stand alone.
    if written := next((name for name, own in _LETTERS.items() if _is_written(data, name, *own)), None):
        return written
    runs = [len(run) for run in re.findall(b"[\x80-\xff]+", data)]
    if sum(length for length in runs if length % 2 == 0) > 0.8 * sum(runs) and _decodes(data, "gb18030"):
        return "gb18030"
    with contextlib.suppress(ImportError):
        from charset_normalizer import from_bytes

        if found := from_bytes(data[: 1 << 18]).best():
            return str(found.encoding)
    return "cp1252" if _decodes(data, "cp1252") else "latin-1"


def _is_written(data: bytes, encoding: str, letters: re.Pattern[str], least: float) -> bool:
    """Whether a text decodes so and then has enough letters that tell its language."""
    if not _decodes(data, encoding):
        return False
    others = [each for each in data.decode(encoding, "replace") if each > "\x7f" and each.isalpha()]
    return len(letters.findall("".join(others))) > least * max(1, len(others))


def _decodes(data: bytes, encoding: str) -> bool:
    """Whether a text decodes, up to its last whole line."""
    with contextlib.suppress(UnicodeDecodeError):
        data[: data.rfind(b"\n") + 1 or len(data)].decode(encoding)
        return True
    return False
