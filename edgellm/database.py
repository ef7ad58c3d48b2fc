"""SQLite files that several processes share: opened in a known form, written in transactions, with our own errors.

    with failures(path, hint="edgellm cache rm --all"):
        db = connect(path, schema=SCHEMA, version=1, busy_seconds=10)
    with failures(path, hint=...), transaction(db): ...

The log is written ahead, so a file is whole after a kill at any moment, and others read while one writes.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from edgellm.errors import CorruptFile, DiskFull, FileAccessError
from edgellm.files import locked

PRAGMAS = ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON")


def connect(
    path: Path,
    *,
    schema: str,
    version: int,
    busy_seconds: float,
    upgrades: Mapping[int, str] = MappingProxyType({}),
    optional: str = "",
    pragmas: Sequence[str] = (),
    newer_hint: str = "update edgellm",
) -> sqlite3.Connection:
    """Open a file that its owner alone can read; an empty one is made if there is none.

    Args:
        schema: the statements that make an empty file; `version` is their number.
        busy_seconds: how long a statement waits for another process.
        upgrades: the statements that turn a file of this version into one of the next.
        optional: statements for an empty file that an old SQLite may not know; the file is good without them.
        pragmas: more of them than every file has.

    Raises:
        CorruptFile: it was made by a newer version.
        sqlite3.Error, OSError: see `failures`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # One at a time: SQLite fails at once if two processes change a new file's journal mode.
    with locked(path.with_name(f"{path.name}.lock")):
        if not path.exists():
            path.touch(mode=0o600)
        db = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
        try:
            for pragma in (*PRAGMAS, *pragmas):
                db.execute(f"PRAGMA {pragma}")
            found = int(db.execute("PRAGMA user_version").fetchone()[0])
            if found > version:
                why = f"its version is {found}, known is {version}"
                raise CorruptFile(f"{path.name} was made by a newer edgellm", why=why, hint=newer_hint)
            if found < version:
                steps = [upgrades[each] for each in range(found, version)] if found else [schema]
                db.executescript(f"BEGIN IMMEDIATE; {' '.join(steps)} PRAGMA user_version = {version}; COMMIT;")
            if found == 0 and optional:
                _try(db, optional)
        except BaseException:
            db.close()
            raise
    return db


def _try(db: sqlite3.Connection, statements: str) -> None:
    try:
        db.executescript(f"BEGIN IMMEDIATE; {statements} COMMIT;")
    except sqlite3.OperationalError:
        db.rollback()


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """All that the block writes, or nothing if it fails."""
    db.execute(begin)
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def failures(path: Path, *, hint: str, access_hint: str = "") -> Iterator[None]:
    """Turn SQLite's errors, and JSON in it that is none, into ours.

    Args:
        hint: what to type if the file is damaged.
        access_hint: what to type if it cannot be opened or written.
    """
    try:
        yield
    except (sqlite3.Error, json.JSONDecodeError) as error:
        reason = str(error)
        if "full" in reason:
            raise DiskFull(f"{path.name} cannot be written", why=reason, hint="free some space") from error
        if any(word in reason for word in ("readonly", "unable to open", "locked", "permission", "disk I/O")):
            raise FileAccessError(
                f"{path.name} cannot be used", why=reason, hint=access_hint, path=str(path)
            ) from error
        raise CorruptFile(f"{path.name} is damaged", why=reason, hint=hint, path=str(path)) from error
