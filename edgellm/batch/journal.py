"""What a batch has answered so far, so that it can be killed at any moment and resume.

    with Journal(output, job) as journal:
        journal.resume(ids)                    # the rows of the input by their ids, in order
        journal.record(3, b'{"id": ...}')      # in any order; the file gets them in the right one
        journal.finish()

Two files lie beside the output while a batch runs. `OUT.part` is the beginning of the output: each line is written at
once, after all lines before it. `OUT.journal` is an SQLite database with everything else that must survive: answers
that came too early, every custom_id so far, and the options of the batch. At the end the options go to `OUT.job`,
`OUT.part` is renamed to `OUT`, and the journal is deleted. If the process dies, nothing is lost; if the machine dies,
at most the rows of the last second, which are then answered again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from edgellm.batch.record import differences, not_stored, write_record
from edgellm.errors import CorruptFile, DiskFull, UsageError
from edgellm.files import sync_directory, sync_file

SYNC_SECONDS = 1.0
FAILED = b'"response":null,"error":'
TABLES = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS job (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS early (place INTEGER PRIMARY KEY, line BLOB);
CREATE TABLE IF NOT EXISTS ids (hash BLOB PRIMARY KEY, row INTEGER) WITHOUT ROWID;
"""


class Journal:
    """The output of one batch; a place is a row's number, from 0."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.part = output.with_name(f"{output.name}.part")
        self.path = output.with_name(f"{output.name}.journal")
        self.done = 0
        self.failed = 0
        self.notes: tuple[str, ...] = ()
        self._job: dict[str, Any] = {}
        self._early: dict[int, bytes] = {}
        self._synced = time.monotonic()

    def __enter__(self) -> Journal:
        """Lock the output for this process.

        Raises:
            UsageError: another process has it.
        """
        self._file = self.part.open("ab+", buffering=0)
        try:
            self._lock()
            with _explained(self.path):
                self._base = _open_base(self.path)
        except BaseException:
            self._file.close()
            raise
        return self

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The process that held it may have finished and renamed the file in between.
            if self.part.stat().st_ino == os.fstat(self._file.fileno()).st_ino:
                return
        except (BlockingIOError, FileNotFoundError):
            pass
        raise UsageError(f"{self.output} is being written by another edgellm batch")

    def agree(self, asked: dict[str, Any], otherwise: dict[str, Any]) -> dict[str, Any]:
        """The options of the batch: those it was begun with, or at the beginning the requested ones.

        Args:
            asked: options by name; a seed of None accepts any.
            otherwise: what None means at the beginning.

        `notes` says afterwards what could not be compared.

        Raises:
            UsageError: it was begun with other options.
        """
        with _explained(self.path):
            stored = {name: json.loads(value) for name, value in self._base.execute("SELECT name, value FROM job")}
        if not stored and os.fstat(self._file.fileno()).st_size:
            self._refuse(f"there is no journal for {self.part.name}, so it is not known what it was begun with")
        if wrong := differences(stored, asked):
            self._refuse("; ".join(wrong))
        if stored and (missing := not_stored(stored, asked)):
            self.notes = (f"an older edgellm began this batch: not compared are {', '.join(missing)}",)
        fresh = {name: otherwise.get(name) if value is None else value for name, value in asked.items()}
        self._job = {**fresh, **stored}
        with _explained(self.path):
            rows = [(name, json.dumps(value)) for name, value in self._job.items()]
            self._base.execute("BEGIN")
            self._base.executemany("INSERT OR REPLACE INTO job VALUES (?, ?)", rows)
            self._base.execute("COMMIT")
        return self._job

    def _refuse(self, why: str) -> None:
        hint = f"the same as before, another --output, or remove {self.part} and {self.path}"
        raise UsageError(f"{self.part.name} is there from another batch", why=why, hint=hint)

    def resume(self, ids: Iterable[str]) -> None:
        """Find out how far the output goes; `ids` are the ids of all rows, in order.

        A line that was cut off is removed.

        Raises:
            UsageError: the output was begun from another input.
        """
        self._file.seek(0)
        good = 0
        with self.part.open("rb") as file:
            for id_, line in zip(ids, file, strict=False):
                if not line.endswith(b"}\n"):
                    break
                if not line.startswith(begin(id_)):
                    self._refuse(f"its line {self.done + 1:,} answers another line of the input than there is now")
                good += len(line)
                self.done += 1
                self.failed += FAILED in line
            if (
                self.done
                and good < file.seek(0, os.SEEK_END)
                and file.seek(good) == good
                and b"\n" in file.read(1 << 20)
            ):
                self._refuse("it has more lines than the input")
        self._file.truncate(good)
        with _explained(self.path):
            self._base.execute("DELETE FROM early WHERE place < ?", (self.done,))
            self._early = dict(self._base.execute("SELECT place, line FROM early"))
        self._write_ready()

    def has(self, place: int) -> bool:
        """Whether the row at a place is answered already."""
        return place < self.done or place in self._early

    def claim(self, custom_id: str, row: int) -> int:
        """The first row with this custom_id: `row` itself, unless it is a duplicate."""
        digest = hashlib.sha256(custom_id.encode()).digest()[:16]
        with _explained(self.path):
            self._base.execute("INSERT OR IGNORE INTO ids VALUES (?, ?)", (digest, row))
            (first,) = self._base.execute("SELECT row FROM ids WHERE hash = ?", (digest,)).fetchone()
        return int(first)

    def record(self, place: int, line: bytes) -> None:
        """Store the answer of a row; it is safe once this returns."""
        self._early[place] = line
        if place != self.done:
            with _explained(self.path):
                self._base.execute("INSERT OR REPLACE INTO early VALUES (?, ?)", (place, line))
        self._write_ready()

    def _write_ready(self) -> None:
        """Append the answers that are next in order."""
        first = self.done
        while (line := self._early.get(self.done)) is not None:
            self._append(line)
            del self._early[self.done]
            self.done += 1
            self.failed += FAILED in line
        if self.done > first + 1 or (self._early and self.done > first):
            with _explained(self.path):
                self._base.execute("DELETE FROM early WHERE place < ?", (self.done,))
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            sync_file(self._file)
            self._synced = time.monotonic()

    def _append(self, line: bytes) -> None:
        """Write a whole line, or nothing."""
        end = self._file.seek(0, os.SEEK_END)
        try:
            left = memoryview(line)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._file.truncate(end)
            error.filename = error.filename or str(self.part)
            raise

    def finish(self) -> None:
        """All rows are answered: write the record, rename the output and delete the journal."""
        sync_file(self._file)
        write_record(self.output, self._job)
        self.part.replace(self.output)
        sync_directory(self.output.parent)
        self._base.close()
        self.remove()

    def remove(self) -> None:
        """Delete the journal."""
        for suffix in ("-wal", "-shm", ""):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            sync_file(self._file)
        with contextlib.suppress(sqlite3.Error):
            if not self.output.exists() and self._is_empty():
                self.part.unlink(missing_ok=True)
                self.remove()
        self._base.close()
        self._file.close()

    def _is_empty(self) -> bool:
        """Whether no row was answered, so that nothing needs to stay behind."""
        (n_early,) = self._base.execute("SELECT count(*) FROM early").fetchone()
        return n_early == 0 and os.fstat(self._file.fileno()).st_size == 0


def begin(id_: str) -> bytes:
    """The beginning of a row's line."""
    return f'{{"id":"{id_}",'.encode()


def already_answered(output: Path, ids: Iterable[str]) -> int | None:
    """How many rows of a finished output failed; None if there is no output.

    Raises:
        UsageError: it does not answer exactly these rows, in order.
    """
    if not output.exists():
        return None
    failed, rows = 0, iter(ids)
    with output.open("rb") as file:
        whole = True
        for line in file:
            whole = whole and line.endswith(b"}\n") and line.startswith(begin(next(rows, "?")))
            failed += FAILED in line
    if not whole or next(rows, None) is not None:
        why = "it does not answer just the rows of this input or shard"
        raise UsageError(f"{output} exists already", why=why, hint="another --output, or remove it")
    journal = Journal(output)
    if not journal.part.exists():
        journal.remove()  # the process was killed before it could delete the journal
    return failed


def _open_base(path: Path) -> sqlite3.Connection:
    base = sqlite3.connect(path, isolation_level=None)
    try:
        base.executescript(TABLES)
    except sqlite3.Error:
        base.close()
        raise
    return base


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error) or "I/O" in str(error):
            hint = "free some space and start the same command again; nothing is lost"
            raise DiskFull(f"the disk is full while writing {path}", why=str(error), hint=hint) from error
        raise CorruptFile(f"the journal {path} cannot be used", why=str(error)) from error
    except sqlite3.DatabaseError as error:
        hint = f"remove it and {path.with_suffix('.part')}: the batch begins again"
        raise CorruptFile(f"the journal {path} is damaged", why=str(error), hint=hint) from error
