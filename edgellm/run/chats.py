"""The saved chats: one SQLite file, written as a chat goes, so that a crash loses at most the answer under way.

    with ChatStore.open(settings.chats) as store:
        chat = store.create("smollm2", system="Be brief.")
        store.add(chat, "user", "What is a ternary weight?")
        store.search("ternary")

Every write is a transaction on its own, in a write-ahead log that is flushed to the disk. Texts are indexed by
trigrams, which finds words of languages without spaces too; what is shorter is looked for in every message. What is
removed is overwritten: SQLite's `secure_delete`, the index rebuilt, the file rewritten and the log emptied.

A summary (`/compact`) hides the messages that it covers from the model; they stay in the chat.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgellm.errors import ChatNotFound, CorruptFile, DiskFull, FileAccessError, UsageError
from edgellm.files import locked

VERSION = 1
SCHEMA = """
CREATE TABLE chats (
    id TEXT PRIMARY KEY, model TEXT NOT NULL, system TEXT, created TEXT NOT NULL, updated TEXT NOT NULL
);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    chat TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    created TEXT NOT NULL,
    finish_reason TEXT NOT NULL DEFAULT '',
    hidden INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX messages_of_chat ON messages (chat, place, id);
"""
INDEX = """
CREATE VIRTUAL TABLE words USING fts5 (content, content = 'messages', content_rowid = 'id', tokenize = 'trigram');
CREATE TRIGGER message_added AFTER INSERT ON messages BEGIN
    INSERT INTO words (rowid, content) VALUES (new.id, new.content);
END;
CREATE TRIGGER message_removed AFTER DELETE ON messages BEGIN
    INSERT INTO words (words, rowid, content) VALUES ('delete', old.id, old.content);
END;
CREATE TRIGGER message_changed AFTER UPDATE OF content ON messages BEGIN
    INSERT INTO words (words, rowid, content) VALUES ('delete', old.id, old.content);
    INSERT INTO words (rowid, content) VALUES (new.id, new.content);
END;
"""
TRIGRAM = 3
BUSY_SECONDS = 10.0
AROUND = 40


@dataclass(frozen=True, slots=True)
class SavedMessage:
    """One message; `hidden` is 1 when a summary stands for it, and the model does not see it."""

    id: int
    role: str
    content: str
    created: str
    finish_reason: str
    hidden: int


@dataclass(frozen=True, slots=True)
class SavedChat:
    """One chat without its messages; `title` is the beginning of the first question."""

    id: str
    model: str
    system: str | None
    created: str
    updated: str
    n_messages: int
    title: str


@dataclass(frozen=True, slots=True)
class Found:
    """A message that has what was looked for, with the text around it."""

    chat: str
    model: str
    created: str
    role: str
    excerpt: str


class ChatStore:
    """All chats of a user."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self._path = path
        self.indexed = bool(self._rows("SELECT 1 FROM sqlite_master WHERE name = 'words'"))

    @classmethod
    def open(cls, path: Path) -> ChatStore:
        """Open the file, made if need be.

        Raises:
            CorruptFile: it is no database, or damaged.
            FileAccessError: it cannot be read or written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with _failures(path):
            if not path.exists():
                path.touch(mode=0o600)  # what people say to a model is theirs
            # One at a time: SQLite does not wait, but fails, where two change a new file's journal mode.
            with locked(path.with_name(f"{path.name}.lock")):
                return cls._opened(path)

    @classmethod
    def _opened(cls, path: Path) -> ChatStore:
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "foreign_keys = ON"):
                db.execute(f"PRAGMA {pragma}")
            _prepare(db, path)
            return cls(db, path)
        except BaseException:
            db.close()
            raise

    def create(self, model: str, system: str | None) -> str:
        """A new, empty chat; returns its id."""
        now = _now()
        while True:
            chat = secrets.token_hex(3)
            if self._write(
                "INSERT OR IGNORE INTO chats VALUES (?, ?, ?, ?, ?)",
                chat,
                model,
                system if system is None else _clean(system),
                now,
                now,
            ).rowcount:
                return chat

    def add(self, chat: str, role: str, content: str, finish_reason: str = "", place: int | None = None) -> int:
        """Append a message, or put it behind that of a place; returns its id.

        Raises:
            ChatNotFound: the chat was removed meanwhile.
        """
        now = _now()
        with self._transaction():
            if not self._write("UPDATE chats SET updated = ? WHERE id = ?", now, chat).rowcount:
                raise ChatNotFound(f"chat {chat} was removed meanwhile", hint="/clear begins a new one", id=chat)
            added = int(self._write(
                "INSERT INTO messages (chat, place, role, content, created, finish_reason) VALUES (?, ?, ?, ?, ?, ?)",
                chat, place or 0, role, _clean(content), now, finish_reason,
            ).lastrowid or 0)  # fmt: skip
            if place is None:
                self._write("UPDATE messages SET place = id WHERE id = ?", added)
        return added

    def replace(self, message: int, content: str, finish_reason: str) -> None:
        """Change an answer."""
        self._write(
            "UPDATE messages SET content = ?, finish_reason = ? WHERE id = ?", _clean(content), finish_reason, message
        )

    def remove_messages(self, messages: Sequence[int]) -> None:
        """Take messages out of a chat."""
        with self._transaction():
            for message in messages:
                self._write("DELETE FROM messages WHERE id = ?", message)

    def summarise(self, chat: str, covered: Sequence[int], request: str, summary: str) -> tuple[int, int]:
        """Put a summary, and the request for it, behind the messages that it covers, which become hidden."""
        with self._transaction():
            for message in covered:
                self._write("UPDATE messages SET hidden = 1 WHERE id = ?", message)
            (place,) = self._rows("SELECT place FROM messages WHERE id = ?", covered[-1])[0]
            return self.add(chat, "user", request, place=place), self.add(chat, "assistant", summary, "stop", place)

    def set_model(self, chat: str, model: str, system: str | None) -> None:
        """Another model answers from now on, with this system message."""
        kept = system if system is None else _clean(system)
        self._write("UPDATE chats SET model = ?, system = ? WHERE id = ?", model, kept, chat)

    def chats(self, limit: int = -1) -> list[SavedChat]:
        """Chats, the latest first."""
        return [self._chat(row) for row in self._rows(f"{CHAT} ORDER BY updated DESC, rowid DESC LIMIT ?", limit)]

    def get(self, name: str) -> SavedChat:
        """The chat whose id begins with this.

        Raises:
            ChatNotFound: there is none.
            UsageError: there are several.
        """
        pattern = f"{_like(name.strip().lower())}%"
        found = self._rows(f"{CHAT} WHERE id LIKE ? ESCAPE '!' ORDER BY id LIMIT 3", pattern) if name.strip() else []
        if not found:
            raise ChatNotFound(f"there is no chat {name!r}", hint="edgellm chats ls", id=name)
        if len(found) > 1 and found[0][0] != name:
            ids = ", ".join(str(row[0]) for row in found)
            raise UsageError(f"several chats begin with {name!r}", why=f"for example {ids}", hint="more of its id")
        return self._chat(found[0])

    def latest(self) -> SavedChat:
        """The chat that was used last."""
        if not (found := self.chats(1)):
            raise ChatNotFound("there is no chat to continue", hint="edgellm chat begins one")
        return found[0]

    def messages(self, chat: str) -> list[SavedMessage]:
        """The messages of a chat in order, hidden ones too."""
        rows = self._rows(
            "SELECT id, role, content, created, finish_reason, hidden FROM messages WHERE chat = ? ORDER BY place, id",
            chat,
        )
        return [SavedMessage(*row) for row in rows]

    def recent_questions(self, limit: int = 500) -> list[str]:
        """What the user asked lately, the latest first: the history of the prompt."""
        rows = self._rows("SELECT content FROM messages WHERE role = 'user' ORDER BY id DESC LIMIT ?", limit)
        return [str(row[0]) for row in rows]

    def search(self, query: str, limit: int = 50) -> list[Found]:
        """Messages that have all words of the query, the latest first; case does not matter."""
        words = query.replace("\0", " ").split()
        if not words:
            raise UsageError("there is nothing to search for", hint="edgellm chats search WORD")
        long = [word for word in words if self.indexed and len(word) >= TRIGRAM]
        conditions = ["1"]
        values: list[str] = []
        if long:
            conditions.append("messages.id IN (SELECT rowid FROM words WHERE words MATCH ?)")
            values.append(" AND ".join('"' + _clean(word).replace('"', '""') + '"' for word in long))
        for word in words:
            if word not in long:
                conditions.append("content LIKE ? ESCAPE '!'")
                values.append(f"%{_like(word)}%")
        where = " AND ".join(conditions)
        rows = self._rows(f"{FOUND} WHERE {where} ORDER BY messages.id DESC LIMIT ?", *values, limit)
        return [Found(chat, model, at, role, _excerpt(text, words[0])) for chat, model, at, role, text in rows]

    def remove(self, chats: Sequence[str]) -> None:
        """Remove chats for good: nothing of them is left in the files."""
        with self._transaction():
            for chat in chats:
                self._write("DELETE FROM chats WHERE id = ?", chat)
        if self.indexed:
            self._write("INSERT INTO words (words) VALUES ('rebuild')")
        self._write("VACUUM")
        self._write("PRAGMA wal_checkpoint(TRUNCATE)")

    def _chat(self, row: tuple[Any, ...]) -> SavedChat:
        chat, model, system, created, updated, n_messages, begins = row
        title = " ".join((begins or "").split())
        short = title if len(title) <= 60 else f"{title[:59]}…"
        return SavedChat(chat, model, system, created, updated, n_messages, short)

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with _failures(self._path):
            return self._db.execute(statement, values).fetchall()

    def _write(self, statement: str, *values: object) -> sqlite3.Cursor:
        with _failures(self._path):
            return self._db.execute(statement, values)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        if self._db.in_transaction:
            yield
            return
        self._write("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.rollback()
            raise
        self._write("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> ChatStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


FOUND = "SELECT chat, model, messages.created, role, content FROM messages JOIN chats ON chats.id = chat"
CHAT = """SELECT id, model, system, created, updated, (SELECT count(*) FROM messages WHERE chat = chats.id),
 (SELECT substr(content, 1, 200) FROM messages WHERE chat = chats.id AND role = 'user' ORDER BY place, id LIMIT 1)
 FROM chats"""


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file; refuse those of a later edgellm."""
    db.execute("BEGIN IMMEDIATE")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise CorruptFile(f"{path} comes from a later edgellm", why=f"its format is {version}", hint="update edgellm")
    if version < VERSION:
        for statement in SCHEMA.split(";\n"):
            db.execute(statement)
        with contextlib.suppress(sqlite3.OperationalError):  # SQLite before 3.34 has no trigrams: all is looked through
            for statement in re.split(r";\n(?=CREATE)", INDEX):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


@contextlib.contextmanager
def _failures(path: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        why = str(error)
        if "full" in why:
            raise DiskFull(f"the disk is full while writing {path}", hint="free some space") from error
        if any(word in why for word in ("open", "readonly", "locked", "disk I/O")):
            hint = "set EDGELLM_HOME to a directory that you can write to, or chat with --private"
            raise FileAccessError(f"cannot use {path}", why=why, hint=hint, path=str(path)) from error
        if isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError)):
            raise
        raise CorruptFile(
            f"the saved chats are damaged: {path}", why=why, hint=f"mv {path} {path}.damaged", path=str(path)
        ) from error


def _clean(text: str) -> str:
    """Text that can be stored: what came in as undecodable bytes is replaced."""
    return text.encode(errors="replace").decode()


def _like(text: str) -> str:
    return re.sub(r"([!%_])", r"!\1", _clean(text))


def _excerpt(content: str, word: str) -> str:
    """The text around a word, on one line."""
    at = max(content.lower().find(word.lower()), 0)
    begin, end = max(at - AROUND, 0), at + len(word) + AROUND
    text = " ".join(content[begin:end].split())
    return f"{'…' if begin else ''}{text}{'…' if end < len(content) else ''}"


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
