"""The file of stored answers: one SQLite database, bounded in size and age, that several processes share.

    with AnswerStore.open(path) as store:
        store.put(scope, "How long is the warranty?", {"text": "24 months."}, text="24 months.", model="smollm2")
        store.exact(scope, "how long is the warranty")

A scope is everything that an answer depends on besides the question, as a hash (`key`). The file is readable by its
owner alone. A write is one transaction in a log that is written ahead, so the file is whole after a kill.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.cache.question_facts import normalised
from edgellm.database import connect, failures, transaction
from edgellm.errors import AnswerNotFound

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

VERSION = 1
BUSY_SECONDS = 10.0
HINT = "edgellm cache rm --all"
MOST_ENTRIES = 10_000
MOST_BYTES = 64 << 20
# No answer is stored that alone would push out a tenth of the others.
MOST_ANSWER_BYTES = 1 << 20
DAY = 86_400.0
MOST_DAYS = 30.0
# Entries that one question is compared with.
MOST_COMPARED = 200
# The latest observations of an entry that count.
MOST_OBSERVATIONS = 50
SCHEMA = """
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, scope TEXT NOT NULL, normal TEXT NOT NULL, question TEXT NOT NULL,
    answer TEXT NOT NULL, text TEXT NOT NULL, model TEXT NOT NULL, created REAL NOT NULL, used REAL NOT NULL,
    hits INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL, embedder TEXT NOT NULL, vector BLOB,
    UNIQUE (scope, normal)
);
CREATE INDEX entries_by_use ON entries (used);
CREATE TABLE observations (
    id INTEGER PRIMARY KEY AUTOINCREMENT, entry INTEGER NOT NULL REFERENCES entries (id) ON DELETE CASCADE,
    similarity REAL NOT NULL, right INTEGER NOT NULL
);
CREATE INDEX observations_of_entry ON observations (entry);
CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
_COLUMNS = "id, scope, question, answer, text, model, created, used, hits, size"


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """A stored answer; `answer` is what its writer wants back, `text` what it says. Times are seconds since 1970."""

    id: int
    scope: str
    question: str
    answer: dict[str, Any]
    text: str
    model: str
    created: float
    used: float
    hits: int
    size: int


class AnswerStore:
    """An open file of answers. What is older than `most_days` counts as gone."""

    def __init__(
        self, db: sqlite3.Connection, path: Path, *, most_days: float, most_bytes: int, clock: Callable[[], float]
    ) -> None:
        self._db, self.path = db, path
        self._most_days, self._most_bytes, self._clock = most_days, most_bytes, clock

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        most_days: float = MOST_DAYS,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> AnswerStore:
        """Open the file; an empty one is made if there is none.

        Raises:
            CorruptFile: it is damaged, or was made by a newer version.
            FileAccessError: it cannot be read or written.
        """
        with failures(path, hint=HINT):
            db = connect(
                path, schema=SCHEMA, version=VERSION, busy_seconds=BUSY_SECONDS, pragmas=["secure_delete = ON"],
                newer_hint=HINT,
            )  # fmt: skip
        return cls(db, path, most_days=most_days, most_bytes=most_bytes, clock=clock)

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def exact(self, scope: str, question: str) -> StoredAnswer | None:
        """The answer to the same question, after normalising."""
        found = self._entries(
            "WHERE scope = ? AND normal = ? AND created > ?", scope, normalised(question), self._oldest
        )
        return found[0] if found else None

    def similar(
        self, scope: str, vector: npt.NDArray[np.float32] | None, embedder: str, most: int = MOST_COMPARED
    ) -> list[tuple[StoredAnswer, float | None]]:
        """Entries of a scope with the cosines of their vectors, the nearest first; without a vector the latest used."""
        import numpy as np

        if vector is None:
            rows = self._entries(
                "WHERE scope = ? AND created > ? ORDER BY used DESC LIMIT ?", scope, self._oldest, most
            )
            return [(row, None) for row in rows]
        with self._failures():
            found = self._db.execute(
                "SELECT id, vector FROM entries WHERE scope = ? AND embedder = ? AND created > ?",
                (scope, embedder, self._oldest),
            ).fetchall()
        found = [(at, data) for at, data in found if data is not None and len(data) == 4 * len(vector)]
        if not found:
            return []
        matrix = np.frombuffer(b"".join(data for _, data in found), np.float32).reshape(len(found), -1)
        cosines = matrix @ vector
        order = np.argsort(-cosines)[:most]
        ids = [found[at][0] for at in order]
        nearest = {entry.id: entry for entry in self._entries(f"WHERE id IN ({','.join('?' * len(ids))})", *ids)}
        return [(nearest[found[at][0]], float(cosines[at])) for at in order if found[at][0] in nearest]

    def put(
        self, scope: str, question: str, answer: dict[str, Any], *, text: str, model: str, embedder: str = "",
        vector: npt.NDArray[np.float32] | None = None,
    ) -> None:  # fmt: skip
        """Store an answer; one to the same question is replaced, and what is too much is dropped."""
        data = json.dumps(answer, ensure_ascii=False).encode(errors="replace").decode()
        size = len(data.encode()) + len(question.encode()) + (0 if vector is None else vector.nbytes)
        if size > MOST_ANSWER_BYTES:
            return
        now = self._clock()
        row = (
            scope, normalised(question), question, data, text, model, now, now, size, embedder,
            None if vector is None else vector.astype("float32").tobytes(),
        )  # fmt: skip
        with self._transaction():
            self._db.execute("DELETE FROM entries WHERE scope = ? AND normal = ?", row[:2])
            self._db.execute(
                "INSERT INTO entries (scope, normal, question, answer, text, model, created, used, size, embedder, "
                "vector) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            self._drop_surplus()

    def used(self, entry: int) -> None:
        """Note that an answer was given."""
        with self._transaction():
            self._db.execute("UPDATE entries SET used = ?, hits = hits + 1 WHERE id = ?", (self._clock(), entry))

    def count(self, name: str) -> None:
        """Count an event, for `counts`."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO counts VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1", (name,)
            )

    def observe(self, entry: int, similarity: float, *, right: bool) -> None:
        """Note whether an entry's answer was right for a question of this similarity."""
        with self._transaction():
            if self._db.execute("SELECT 1 FROM entries WHERE id = ?", (entry,)).fetchone():
                row = (entry, similarity, right)
                self._db.execute("INSERT INTO observations (entry, similarity, right) VALUES (?, ?, ?)", row)

    def observations(self, entry: int) -> list[tuple[float, bool]]:
        """The latest observations of an entry."""
        with self._failures():
            rows = self._db.execute(
                "SELECT similarity, right FROM observations WHERE entry = ? ORDER BY id DESC LIMIT ?",
                (entry, MOST_OBSERVATIONS),
            )
            return [(float(similarity), bool(right)) for similarity, right in rows]

    def entries(self, most: int = -1) -> list[StoredAnswer]:
        """All answers that count, the latest used first."""
        return self._entries("WHERE created > ? ORDER BY used DESC, id DESC LIMIT ?", self._oldest, most)

    def get(self, entry: int) -> StoredAnswer:
        """An entry by its id.

        Raises:
            AnswerNotFound: there is none.
        """
        found = self._entries("WHERE id = ?", entry)
        if not found:
            raise AnswerNotFound(f"there is no stored answer {entry}", hint="edgellm cache ls")
        return found[0]

    def remove(self, ids: list[int]) -> None:
        """Forget entries; their texts are overwritten."""
        with self._transaction():
            self._db.executemany("DELETE FROM entries WHERE id = ?", [(each,) for each in ids])
        with self._failures():
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def clear(self) -> None:
        """Forget all entries and counts; their texts are overwritten."""
        with self._transaction():
            self._db.execute("DELETE FROM entries")
            self._db.execute("DELETE FROM counts")
        with self._failures():
            self._db.execute("VACUUM")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def counts(self) -> Counter[str]:
        """What was counted since the file was made."""
        with self._failures():
            return Counter(dict(self._db.execute("SELECT name, value FROM counts").fetchall()))

    @property
    def _oldest(self) -> float:
        return self._clock() - DAY * self._most_days

    def _drop_surplus(self) -> None:
        """Drop what is too old, and what was used least recently of what is too much."""
        self._db.execute("DELETE FROM entries WHERE created <= ?", (self._oldest,))
        n_entries, n_bytes = self._db.execute("SELECT count(*), coalesce(sum(size), 0) FROM entries").fetchone()
        while n_entries > 1 and (n_entries > MOST_ENTRIES or n_bytes > self._most_bytes):
            at, size = self._db.execute("SELECT id, size FROM entries ORDER BY used, id LIMIT 1").fetchone()
            self._db.execute("DELETE FROM entries WHERE id = ?", (at,))
            n_entries, n_bytes = n_entries - 1, n_bytes - size

    def _entries(self, where: str, *values: object) -> list[StoredAnswer]:
        with self._failures():
            rows = self._db.execute(f"SELECT {_COLUMNS} FROM entries {where}", values).fetchall()  # noqa: S608
            names = _COLUMNS.split(", ")
            return [
                StoredAnswer(**{**dict(zip(names, row, strict=True)), "answer": json.loads(row[3])}) for row in rows
            ]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._failures(), transaction(self._db):
            yield

    def _failures(self) -> contextlib.AbstractContextManager[None]:
        return failures(self.path, hint=HINT)


def discard(path: Path) -> None:
    """Delete the file of answers, whatever its state."""
    for ending in ("", "-wal", "-shm", ".lock"):
        path.with_name(path.name + ending).unlink(missing_ok=True)
