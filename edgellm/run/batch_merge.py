"""The outputs of the shards of a batch put together, in the order of its input.

merge([Path("part1.jsonl"), Path("part2.jsonl")], Path("answers.jsonl"))  ->  (1000, 2): rows, and those that failed
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from edgellm.errors import CorruptFile, FileAccessError, UsageError
from edgellm.files import sync_directory, sync_file
from edgellm.run.batch_journal import FAILED

BEGIN = re.compile(rb'\{"id":"batch_req_(\d{1,18})_[0-9a-f]{12}",')


def merge(parts: Sequence[Path], output: Path) -> tuple[int, int]:
    """Write the rows of all parts, one after the other; returns how many there are, and how many of them failed.

    Raises:
        UsageError: a row is missing or there twice: a shard is not finished, is missing, or is given twice.
        CorruptFile: a line is none of a batch's output.
    """
    if output.exists():
        raise UsageError(f"{output} exists already", hint="another name")
    n_rows = failed = 0
    partial = output.with_name(f"{output.name}.{os.getpid()}.part")
    try:
        with ExitStack() as stack:
            sources = [_rows(stack.enter_context(_opened(path)), path) for path in parts]
            out = stack.enter_context(partial.open("wb"))
            for row, line, path in heapq.merge(*sources, key=lambda each: each[0]):
                if row != n_rows + 1:
                    what = f"row {row:,} is there twice" if row <= n_rows else f"row {n_rows + 1:,} is missing"
                    raise UsageError(
                        f"{what}, before line {line[:40]!r} of {path}", why="each shard is needed once, whole"
                    )
                n_rows += 1
                failed += FAILED in line
                out.write(line)
            sync_file(out)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    sync_directory(output.parent)
    return n_rows, failed


def _rows(file: IO[bytes], path: Path) -> Iterator[tuple[int, bytes, Path]]:
    last = 0
    for number, line in enumerate(file, 1):
        found = BEGIN.match(line)
        if found is None or not line.endswith(b"}\n") or int(found[1]) <= last:
            raise CorruptFile(f"{path} is no output of edgellm batch", why=f"line {number} is damaged or out of order")
        last = int(found[1])
        yield last, line, path


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise FileAccessError(f"cannot read {path}", why=str(error.strerror), path=str(path)) from error
