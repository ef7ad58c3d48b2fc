"""A file in a form (multipart/form-data), written to disk as it arrives. The only module that knows python_multipart.

    form = await receive_form(request, directory, most_bytes=512 << 20)
    form.fields["purpose"], form.file_name, form.path

One file is taken, of the field `file`. Whatever is wrong, nothing of it stays on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from edgellm.errors import DiskFull
from edgellm.files import require_space, sync_file
from edgellm.serve.http.problems import Problem

FILE = "file"
# Of the other fields, and of a line before each.
MOST_FIELDS, MOST_FIELD_BYTES, MOST_HEAD_BYTES = 64, 1 << 16, 1 << 14
# Written together: a thread for each network packet would cost more than the writing.
TOGETHER = 1 << 20


@dataclass(slots=True)
class Form:
    """What a form had; `path` is its file, whose name may be anything the client wrote."""

    path: Path
    fields: dict[str, str] = field(default_factory=dict)
    file_name: str | None = None


@contextlib.asynccontextmanager
async def receive_form(request: Request, directory: Path, *, most_bytes: int) -> AsyncIterator[Form]:
    """Receive a form; its file is removed at the end of the block, unless it has been moved.

    Raises:
        Problem: it is no form, has no file, or is too large; the client went away.
        DiskFull: there is no room for it.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise Problem(400, "the body must be a form (multipart/form-data) with a file", code="bad-body", field=FILE)
    announced = request.headers.get("content-length", "")
    require_space(directory, int(announced) if announced.isdecimal() else 0, purpose="the file")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".arriving-", dir=directory)
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            reader = _FormReader(Form(path), file, most_bytes)
            await _feed(request, MultipartParser(options[b"boundary"], reader.callbacks), reader)
            await asyncio.to_thread(sync_file, file)
        if reader.form.file_name is None:
            raise Problem(400, "file is missing: the form has no file", code="missing-field", field=FILE)
        yield reader.form
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFull("there is no room for the file on the server's disk") from error
    finally:
        path.unlink(missing_ok=True)


async def _feed(request: Request, parser: MultipartParser, reader: _FormReader) -> None:
    try:
        async for data in request.stream():
            parser.write(data)
            if len(reader.pending) >= TOGETHER:
                await asyncio.to_thread(reader.flush)
        parser.finalize()
    except FormParserError as error:
        raise Problem(400, f"the form cannot be read: {str(error)[:200]}", code="bad-body", field=FILE) from None
    except ClientDisconnect:
        raise Problem(400, "the body ended early", code="bad-body") from None
    if not reader.is_over:
        raise Problem(400, "the form has no end", code="bad-body", field=FILE)
    await asyncio.to_thread(reader.flush)


class _FormReader:
    """Takes what the parser finds: heads and data of the parts, piece by piece."""

    def __init__(self, form: Form, file: IO[bytes], most_bytes: int) -> None:
        self.form = form
        self.pending = bytearray()
        self.is_over = False
        self._file, self._most_bytes = file, most_bytes
        self._n_bytes = self._n_parts = 0
        self._name = ""  # of the present part
        self._is_file = False
        self._value = bytearray()
        self._head: dict[bytes, bytes] = {}
        self._header, self._header_value = bytearray(), bytearray()

    @property
    def callbacks(self) -> Any:
        """For the parser."""
        return {
            "on_part_begin": self._begin, "on_header_field": self._take_header, "on_header_value": self._take_value,
            "on_header_end": self._end_header, "on_headers_finished": self._open, "on_part_data": self._take,
            "on_part_end": self._close, "on_end": self._end,
        }  # fmt: skip

    def flush(self) -> None:
        """Write what has come of the file."""
        self._file.write(self.pending)
        self.pending.clear()

    def _begin(self) -> None:
        self._n_parts += 1
        if self._n_parts > MOST_FIELDS:
            raise _too_large(f"the form has more than {MOST_FIELDS} fields")
        self._head, self._value, self._is_file = {}, bytearray(), False

    def _take_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]
        self._check_head()

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._check_head()

    def _check_head(self) -> None:
        """Older parsers bound it not at all, newer ones sooner."""
        if len(self._header) + len(self._header_value) > MOST_HEAD_BYTES:
            raise Problem(400, "the form cannot be read: the head of a field is too long", code="bad-body", field=FILE)

    def _end_header(self) -> None:
        self._head[bytes(self._header).lower()] = bytes(self._header_value)
        self._header.clear()
        self._header_value.clear()

    def _open(self) -> None:
        _, options = parse_options_header(self._head.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._name == FILE and b"filename" in options
        if self._is_file and self.form.file_name is not None:
            raise Problem(400, "the form has two files; send one in each request", code="bad-body", field=FILE)
        if self._is_file:
            self.form.file_name = options[b"filename"].decode("utf-8", "replace")

    def _take(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            self._value += data[start:end]
            if len(self._value) > MOST_FIELD_BYTES:
                raise _too_large(f"{self._name[:60]} is too long")
            return
        self.pending += data[start:end]
        self._n_bytes += end - start
        if self._n_bytes > self._most_bytes:
            raise _too_large(f"the file is larger than {self._most_bytes:,} bytes")

    def _close(self) -> None:
        if not self._is_file:
            self.form.fields[self._name] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self.is_over = True


def _too_large(message: str) -> Problem:
    return Problem(413, message, code="body-too-large", field=FILE)
