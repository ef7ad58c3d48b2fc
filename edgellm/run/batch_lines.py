"""The lines of a batch's input as they lie in the file, whatever is in it: read once through, in constant memory.

    for line in read_lines(path): line.row, line.number, line.data

A row is a line that is not blank; a shard `i/n` has every n-th of them. Lines may end with CRLF, the last one with
nothing, and the file may begin with a byte order mark.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgellm.errors import FileAccessError, UsageError
from edgellm.progress import Progress, Report, silent

# The longest line that is taken into memory; a million tokens are about 4 MB of text.
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
        """What the row is called in the output: its place and its content."""
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
        """How many of so many rows belong to it."""
        return max(0, (n_rows - self.index) // self.count + 1)


@dataclass(frozen=True, slots=True)
class Survey:
    """What a look at the whole input tells: how many rows there are, and whether they are JSON."""

    n_rows: int
    jsonl: bool


def ids(path: Path, shard: Shard) -> Iterator[str]:
    """The ids of a shard's rows, in order."""
    return (line.id for line in read_lines(path) if shard.has(line.row))


def survey(path: Path, report: Report = silent) -> Survey:
    """Count the rows.

    Raises:
        FileAccessError: the file cannot be read, or is none.
    """
    if not path.is_file():
        why = "it is no file: it is read twice, so that a batch can go on" if path.exists() else "there is no such file"
        raise FileAccessError(f"cannot read {path}", why=why, path=str(path))
    done, n_rows, blank, first = 0, 0, True, b""
    size = path.stat().st_size
    with _opened(path) as file:
        while chunk := file.read(1 << 20):
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


def read_lines(path: Path) -> Iterator[Line]:
    """All lines that are not blank."""
    row = number = 0
    with _opened(path) as file:
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


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise FileAccessError(f"cannot read {path}", why=str(error.strerror), path=str(path)) from error
