"""The lines of a batch's input, whatever the file holds, read in constant memory.

    for line in read_lines(path): line.row, line.number, line.data

A row is a line that is not blank; shard `i/n` has every n-th row. Lines may end with CRLF, the last line may end with
nothing, and the file may begin with a byte order mark.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgellm.errors import FileAccessError, NotText, UsageError
from edgellm.progress import Progress, Report, silent
from edgellm.text import encoding_of

# The longest line that is read into memory; a million tokens are about 4 MB of text.
MAX_LINE = 16 << 20
BOM = b"\xef\xbb\xbf"
JSONL_SUFFIXES = (".jsonl", ".ndjson", ".json")
TEXT_SUFFIXES = (".txt", ".text")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the input. `row` counts those that are not blank, from 1, `number` all, as editors do; `data` is None
    when the line is longer than `MAX_LINE`. `digest` tells its content."""

    row: int
    number: int
    data: bytes | None
    digest: str

    @property
    def id(self) -> str:
        """The row's id in the output: its number and a digest of its content."""
        return f"batch_req_{self.row}_{self.digest}"


@dataclass(frozen=True, slots=True)
class Shard:
    """Every `count`-th row, beginning with row `index` (from 1)."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/4`; UsageError for anything else."""
        index, slash, count = text.partition("/")
        if slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count) <= 1_000_000:
            return cls(int(index), int(count))
        raise UsageError(f"--shard {text[:40]}: not a shard", why="it is i/n, as in 1/4 to 4/4")

    def has(self, row: int) -> bool:
        """Whether a row belongs to it."""
        return (row - self.index) % self.count == 0

    def rows_of(self, n_rows: int) -> int:
        """How many of `n_rows` rows belong to it."""
        return max(0, (n_rows - self.index) // self.count + 1)


@dataclass(frozen=True, slots=True)
class Survey:
    """The input as a whole: how many rows it has, and whether they are JSON."""

    n_rows: int
    jsonl: bool


def ids(path: Path, shard: Shard) -> Iterator[str]:
    """The ids of a shard's rows, in order."""
    return (line.id for line in read_lines(path) if shard.has(line.row))


def survey(path: Path, report: Report = silent) -> Survey:
    """Count the rows.

    Raises:
        FileAccessError: it is not a file, or cannot be read.
        NotText: it is in UTF-16 or UTF-32.
    """
    if not path.is_file():
        why = "it is no file: it is read twice, so that a batch can go on" if path.exists() else "there is no such file"
        raise FileAccessError(f"cannot read {path}", why=why, path=str(path))
    done, n_rows, blank, first = 0, 0, True, b""
    size = path.stat().st_size
    with open_input(path) as file:
        while chunk := file.read(1 << 20):
            if not done:
                _require_utf8(chunk, path.name)
            done += len(chunk)
            report(Progress("counting rows", done, size, "B"))
            lines = (chunk.removeprefix(BOM) if done == len(chunk) else chunk).split(b"\n")
            for index, part in enumerate(lines):
                blank = blank and not part.strip()
                first = first or part.strip()[:1]
                if index < len(lines) - 1:
                    n_rows += not blank
                    blank = True
    suffix = path.suffix.lower()
    jsonl = suffix in JSONL_SUFFIXES or (suffix not in TEXT_SUFFIXES and first == b"{")
    return Survey(n_rows + (not blank), jsonl)


def _require_utf8(start: bytes, name: str) -> None:
    """Raise `NotText` if a file's first bytes are those of UTF-16 or UTF-32, whose lines bytes cannot tell."""
    encoding = encoding_of(start[:4]).removesuffix("-sig").upper()
    if encoding != "UTF-8":
        hint = f"iconv -f {encoding} -t UTF-8 {name} > utf8-{name}"
        raise NotText(f"{name} is in {encoding}", why="the lines of a batch are UTF-8", hint=hint)


def read_lines(path: Path) -> Iterator[Line]:
    """The lines that are not blank."""
    row = number = 0
    with open_input(path) as file:
        while data := file.readline(MAX_LINE + 1):
            number += 1
            too_long = len(data) > MAX_LINE and not data.endswith(b"\n")
            blank = not (data.removeprefix(BOM) if number == 1 else data).strip()
            digest, rest = hashlib.sha256(data.rstrip(b"\r\n")), data
            while too_long and rest and not rest.endswith(b"\n"):
                rest = file.readline(1 << 20)
                digest.update(rest.rstrip(b"\r\n"))
                blank = blank and not rest.strip()
            if not blank:
                row += 1
                whole = data.removeprefix(BOM) if number == 1 else data
                yield Line(row, number, None if too_long else whole.rstrip(b"\r\n"), digest.hexdigest()[:12])


def open_input(path: Path) -> IO[bytes]:
    """The file, open for reading; raises `FileAccessError`."""
    try:
        return path.open("rb")
    except OSError as error:
        raise FileAccessError(f"cannot read {path}", why=str(error.strerror), path=str(path)) from error
