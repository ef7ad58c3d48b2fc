"""Text from outside as a string, whatever system wrote it: understood, or refused with the reason.

decode_text(b"\\xef\\xbb\\xbfHello", "notes.txt")  ->  "Hello"
read_text(Path("notes.txt"))

A byte order mark says how a text is encoded and is no part of it. Without one a text is UTF-8. Anything else would
reach the model as rubbish: Latin-1 has no mark, and a zero byte is in no text.
"""

from __future__ import annotations

import codecs
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgellm.errors import FileAccessError, NotText, UsageError

# The marks and what they mean, the longer ones first: UTF-16's is the beginning of UTF-32's.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
MARK = "\ufeff"
# About four million tokens, more than any context holds.
LARGEST_TEXT = 16_000_000


def encoding_of(start: bytes) -> str:
    """The encoding that the first bytes of a text tell: that of their byte order mark, else UTF-8."""
    return next((encoding for mark, encoding in MARKS if start.startswith(mark)), "utf-8")


def decode_text(data: bytes, name: str) -> str:
    """The text in some bytes, without its byte order mark; `name` is what the message calls it.

    Raises:
        NotText: it is neither UTF-8 nor marked as UTF-16 or UTF-32, or has zero bytes.
    """
    encoding = encoding_of(data[:4])
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _not_text(data, name, error) from None
    if "\0" in text:
        raise _not_text(data, name, None)
    return text


def read_text(path: Path, *, limit: int = LARGEST_TEXT) -> str:
    """The text of a whole file of at most `limit` bytes.

    Raises:
        FileAccessError: there is no such file, or it cannot be read.
        UsageError: it is too large, or not text (`NotText`).
    """
    try:
        if not path.exists():
            raise FileAccessError(f"there is no file {path}", hint="the path of a text file", path=str(path))
        with path.open("rb") as file:
            return read_stream(file, str(path), limit=limit)
    except (OSError, ValueError) as error:
        raise FileAccessError(f"cannot read {path}", why=str(error), path=str(path)) from error


def read_stream(stream: BinaryIO, name: str, *, limit: int = LARGEST_TEXT) -> str:
    """The text in the rest of a stream, at most `limit` bytes.

    Raises:
        UsageError: it is too large, or not text (`NotText`).
    """
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise UsageError(f"{name} is too large", why=f"the limit is {limit / 1e6:.0f} MB of text", hint="head -c 1M")
    return decode_text(data, name)


def text_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """The lines of a stream, as they come; raises as `decode_text` does."""
    first = stream.readline(LARGEST_TEXT)
    encoding = encoding_of(first[:4])
    if encoding in ("utf-8", "utf-8-sig"):
        yield decode_text(first, name)
        while line := stream.readline(LARGEST_TEXT):
            yield decode_text(line, name)
        return
    # The byte of a newline also stands inside other characters, so lines can only be found in the whole.
    yield from io.StringIO(decode_text(first + stream.read(LARGEST_TEXT), name))


def typed_text(text: str, name: str) -> str:
    """An argument or a variable as text: Python marks bytes that its locale cannot read by half characters.

    Raises:
        NotText: they are not UTF-8 either.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            return decode_text(os.fsencode(text), name)
        except UnicodeEncodeError:
            raise NotText(f"{name} has half a character", why="a surrogate without its other half") from None
    return text.removeprefix(MARK)


def _not_text(data: bytes, name: str, error: UnicodeDecodeError | None) -> NotText:
    """What is wrong with some bytes, and the command that mends it where there is one."""
    hint = "a text file in UTF-8"
    if b"\0" in data and encoding_of(data[:4]) in ("utf-8", "utf-8-sig"):
        wide = _looks_wide(data)
        if wide:
            hint = f"iconv -f {wide} -t UTF-8"
        why = f"it looks like {wide} without a byte order mark" if wide else "it contains zero bytes"
        return NotText(f"{name} is not a text in UTF-8", why=why, hint=hint)
    if error is None:
        return NotText(f"{name} is not a text", why="it contains zero bytes", hint=hint)
    encoding = error.encoding[:6].rstrip("-").upper()
    if encoding == "UTF-8":
        hint = "iconv -f LATIN1 -t UTF-8"
    why = f"byte {error.start + 1} is 0x{error.object[error.start]:02x}: {error.reason}"
    return NotText(f"{name} is not a text in {encoding}", why=why, hint=hint)


def _looks_wide(data: bytes) -> str:
    """UTF-16LE or UTF-16BE, if every other byte of the beginning is zero, as Latin letters have it; else nothing."""
    start = data[: min(len(data), 64) // 2 * 2]
    if not any(start[0::2]) and any(start):
        return "UTF-16BE"
    return "UTF-16LE" if start and not any(start[1::2]) and any(start) else ""
