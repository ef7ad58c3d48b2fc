"""What a model has answered to lm-eval's requests so far, so that a run of hours can be killed at any moment.

    with ResponseLog.open(settings.responses, made_by) as log:
        log.put({request_key("loglikelihood", question, answer): [-1.25, True]})
        log.get(request_key("loglikelihood", question, answer))

There is one SQLite file for each `made_by`: everything that changes a number, such as the model and the engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgellm.database import connect, failures, transaction

if TYPE_CHECKING:
    import sqlite3

SCHEMA = """
CREATE TABLE responses (request BLOB PRIMARY KEY, response TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE made_by (value TEXT NOT NULL);
"""
BUSY_SECONDS = 10.0


def request_key(kind: str, *arguments: Any) -> bytes:
    """The hash of a request: its kind and its arguments, which are JSON values."""
    return hashlib.sha256(json.dumps([kind, *arguments]).encode()).digest()


class ResponseLog:
    """The responses of one model under one plan; two processes may share it."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path = path
        self._db = db

    @classmethod
    def open(cls, directory: Path, made_by: Mapping[str, Any]) -> ResponseLog:
        """The log of what was `made_by` this, an empty one if there is none.

        Raises:
            CorruptFile, FileAccessError, DiskFull: its file cannot be used.
        """
        text = json.dumps(made_by, sort_keys=True, default=str)
        path = directory / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.sqlite3"
        with failures(path, hint=f"rm {path}"):
            db = connect(path, schema=SCHEMA, version=1, busy_seconds=BUSY_SECONDS, newer_hint=f"rm {path}")
            with ExitStack() as stack:
                stack.callback(db.close)
                with transaction(db):
                    db.execute("INSERT INTO made_by SELECT ? WHERE NOT EXISTS (SELECT * FROM made_by)", (text,))
                stack.pop_all()
        return cls(path, db)

    def get(self, request: bytes) -> Any:
        """The response to a request, None if it is not here."""
        with failures(self.path, hint=f"rm {self.path}"):
            row = self._db.execute("SELECT response FROM responses WHERE request = ?", (request,)).fetchone()
            return json.loads(row[0]) if row else None

    def put(self, responses: Mapping[bytes, Any]) -> None:
        """Store all of these responses or, if the process is killed, none."""
        rows = [(request, json.dumps(response)) for request, response in responses.items()]
        with failures(self.path, hint=f"rm {self.path}"), transaction(self._db):
            self._db.executemany("INSERT OR REPLACE INTO responses VALUES (?, ?)", rows)

    def __enter__(self) -> ResponseLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._db.close()
