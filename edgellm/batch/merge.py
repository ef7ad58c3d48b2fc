"""Merges the outputs of all shards of a batch, in the order of its input.

merge([Path("part1.jsonl"), Path("part2.jsonl")], Path("answers.jsonl"))  ->  (1000, 2): rows, and those that failed
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from edgellm.batch.journal import FAILED
from edgellm.batch.lines import open_input
from edgellm.batch.record import differences, read_record, write_record
from edgellm.errors import CorruptFile, UsageError
from edgellm.files import sync_directory, sync_file

_ANY_SHARD = {"shard": "1/1", "seed": None}
BEGIN = re.compile(rb'\{"id":"batch_req_(\d{1,18})_[0-9a-f]{12}",')


def merge(parts: Sequence[Path], output: Path) -> tuple[int, int]:
    """Write the rows of all parts in order; returns their number, and how many of them failed.

    Raises:
        UsageError: a row is missing or duplicate: a shard is unfinished, missing, or given twice; or the shards were
            answered by different models or with different options.
        CorruptFile: a line is not the output of a batch.
    """
    if output.exists():
        raise UsageError(f"{output} exists already", hint="another name")
    record = _common_record(parts)
    n_rows = failed = 0
    partial = output.with_name(f"{output.name}.{os.getpid()}.part")
    try:
        with ExitStack() as stack:
            sources = [_rows(stack.enter_context(open_input(path)), path) for path in parts]
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
        if record is not None:
            write_record(output, record)
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    sync_directory(output.parent)
    return n_rows, failed


def _common_record(parts: Sequence[Path]) -> dict[str, Any] | None:
    """The record of the merged output; None if a part has none, as those of an older edgellm."""
    records = [read_record(path) for path in parts]
    known = [(path, record) for path, record in zip(parts, records, strict=True) if record is not None]
    for path, record in known:
        first_path, first = known[0]
        if wrong := differences({**first, **_ANY_SHARD}, {**record, **_ANY_SHARD}):
            why = f"from {first_path} to {path}, {'; '.join(wrong)}"
            raise UsageError("the shards are not of one batch", why=why, hint="run a shard again with the same options")
    if len(known) < len(parts):
        return None
    seeds = {record.get("seed") for _, record in known}
    return {**known[0][1], **_ANY_SHARD, "seed": seeds.pop() if len(seeds) == 1 else None}


def _rows(file: IO[bytes], path: Path) -> Iterator[tuple[int, bytes, Path]]:
    last = 0
    for number, line in enumerate(file, 1):
        found = BEGIN.match(line)
        if found is None or not line.endswith(b"}\n") or int(found[1]) <= last:
            raise CorruptFile(f"{path} is no output of edgellm batch", why=f"line {number} is damaged or out of order")
        last = int(found[1])
        yield last, line, path
