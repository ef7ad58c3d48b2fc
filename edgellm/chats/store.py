"""The saved chats: one SQLite file, written during a chat, so that a crash loses at most the answer under way.

    with ChatStore.open(settings.chats) as store:
        chat = store.create("smollm2", system="Be brief.")
        store.add(chat, "user", "What is a ternary weight?")
        store.search("ternary")

Every write is its own transaction, in a write-ahead log that is flushed to the disk. Texts are indexed by trigrams,
which also finds words of languages without spaces; for shorter words every message is searched. Removed texts are
overwritten: SQLite's `secure_delete`, the index rebuilt, the file rewritten and the log emptied.

A summary (`/compact`) hides the messages that it covers from the model; they stay in the file. So do the oldest ones
that the page leaves out of a chat that is too long.

Several processes may write to one chat. Each removes messages only by their ids, and `splice` changes nothing unless
the chat still ends as its caller last saw it.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgellm.database import connect, failures, transaction
from edgellm.documents.answers.citation import Citation
from edgellm.errors import ChatChanged, ChatNotFound, UsageError
from edgellm.tools.record import CallRecord, calls_from, calls_text

VERSION = 5
# The title, the citations, the documents, the calls of tools.
UPGRADES = {
    1: "ALTER TABLE chats ADD COLUMN title TEXT NOT NULL DEFAULT '';",
    2: "ALTER TABLE messages ADD COLUMN citations TEXT NOT NULL DEFAULT '';",
    3: "ALTER TABLE chats ADD COLUMN docs TEXT;",
    4: "ALTER TABLE messages ADD COLUMN calls TEXT NOT NULL DEFAULT '';",
}
SCHEMA = """
CREATE TABLE chats (
    id TEXT PRIMARY KEY, model TEXT NOT NULL, system TEXT, created TEXT NOT NULL, updated TEXT NOT NULL,
    title TEXT NOT NULL DEFAULT '', docs TEXT
);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    chat TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    created TEXT NOT NULL,
    finish_reason TEXT NOT NULL DEFAULT '',
    hidden INTEGER NOT NULL DEFAULT 0,
    citations TEXT NOT NULL DEFAULT '',
    calls TEXT NOT NULL DEFAULT ''
);
CREATE INDEX messages_of_chat ON messages (chat, place, id);
"""
# SQLite before 3.34 has no trigrams; there searches read every message.
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
    """One message; `hidden` is 1 if the model no longer sees it: a summary replaces it, or the chat was too long.

    `citations` are the places in documents that bear an answer, `calls` the tools that were called for it.
    """

    id: int
    role: str
    content: str
    created: str
    finish_reason: str
    hidden: int
    citations: list[Citation]
    calls: list[CallRecord]


@dataclass(frozen=True, slots=True)
class SavedChat:
    """One chat without its messages; `title` is the one it was given, or the beginning of the first question.

    `docs` names the documents that its questions are put to, None for none.
    """

    id: str
    model: str
    system: str | None
    created: str
    updated: str
    n_messages: int
    title: str
    docs: str | None = None


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that is not stored yet."""

    role: str
    content: str
    finish_reason: str = ""
    hidden: int = 0
    calls: tuple[CallRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A message that matches a search, with the text around the match."""

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
        """Open the file, and create it if it is missing.

        Raises:
            CorruptFile: it is not a database, or is damaged.
            FileAccessError: it cannot be read or written.
        """
        with _failures(path):
            db = connect(
                path, schema=SCHEMA, version=VERSION, busy_seconds=BUSY_SECONDS, upgrades=UPGRADES, optional=INDEX,
                pragmas=("synchronous = FULL", "fullfsync = ON", "secure_delete = ON"),
            )  # fmt: skip
        try:
            return cls(db, path)
        except BaseException:
            db.close()
            raise

    def create(self, model: str, system: str | None, docs: str | None = None) -> str:
        """Create an empty chat; returns its id."""
        now = _now()
        while True:
            chat = secrets.token_hex(3)
            if self._write(
                "INSERT OR IGNORE INTO chats (id, model, system, created, updated, docs) VALUES (?, ?, ?, ?, ?, ?)",
                chat,
                model,
                system if system is None else _clean(system),
                now,
                now,
                docs,
            ).rowcount:
                return chat

    def add(
        self,
        chat: str,
        role: str,
        content: str,
        finish_reason: str = "",
        place: int | None = None,
        citations: Sequence[Citation] = (),
        calls: Sequence[CallRecord] = (),
    ) -> int:
        """Append a message, or insert it after the one at `place`; returns its id.

        Raises:
            ChatNotFound: another process removed the chat.
        """
        now = _now()
        with self.transaction():
            if not self._write("UPDATE chats SET updated = ? WHERE id = ?", now, chat).rowcount:
                raise ChatNotFound(f"chat {chat} was removed meanwhile", hint="/clear begins a new one", id=chat)
            added = int(self._write(
                "INSERT INTO messages (chat, place, role, content, created, finish_reason, citations, calls) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                chat, place or 0, role, _clean(content), now, finish_reason, _stored(citations),
                _clean(calls_text(calls)),
            ).lastrowid or 0)  # fmt: skip
            if place is None:
                self._write("UPDATE messages SET place = id WHERE id = ?", added)
        return added

    def splice(self, chat: str, last: int | None, after: int | None, messages: Sequence[NewMessage]) -> list[int]:
        """Put messages in the place of those after `after`, or of all; returns their ids.

        Args:
            last: the message with which the chat ends as far as the caller knows; None if it has none.
            after: the last message that stays; None if none stays.

        Raises:
            ChatChanged: another writer changed the chat; nothing happened.
            ChatNotFound: another process removed the chat.
        """
        with self.transaction():
            stored = [message.id for message in self.messages(chat)]
            if (stored[-1] if stored else None) != last or (after is not None and after not in stored):
                self.get(chat)
                raise _changed(chat)
            self.remove_messages(stored[0 if after is None else stored.index(after) + 1 :])
            added = [self.add(chat, each.role, each.content, each.finish_reason, calls=each.calls) for each in messages]
            for message, each in zip(added, messages, strict=True):
                if each.hidden:
                    self._write("UPDATE messages SET hidden = 1 WHERE id = ?", message)
        return added

    def hide(self, chat: str, through: int) -> None:
        """Hide the messages of a chat from the model up to this one."""
        with self.transaction():
            for message in self.messages(chat):
                self._write("UPDATE messages SET hidden = 1 WHERE id = ?", message.id)
                if message.id == through:
                    return
            raise _changed(chat)

    def rename(self, chat: str, title: str) -> None:
        """Give a chat a title; an empty one stands for the beginning of its first question."""
        self._write("UPDATE chats SET title = ? WHERE id = ?", _clean(title), chat)

    def replace(
        self,
        message: int,
        content: str,
        finish_reason: str,
        citations: Sequence[Citation] = (),
        calls: Sequence[CallRecord] = (),
    ) -> bool:
        """Replace the text of an answer; returns False if another process removed it."""
        return bool(self._write(
            "UPDATE messages SET content = ?, finish_reason = ?, citations = ?, calls = ? WHERE id = ?",
            _clean(content), finish_reason, _stored(citations), _clean(calls_text(calls)), message,
        ).rowcount)  # fmt: skip

    def remove_messages(self, messages: Sequence[int]) -> None:
        """Remove messages by their ids."""
        with self.transaction():
            for message in messages:
                self._write("DELETE FROM messages WHERE id = ?", message)

    def summarise(self, chat: str, covered: Sequence[int], request: str, summary: str) -> tuple[int, int]:
        """Insert a summary and the request for it after the messages that it covers, and hide those.

        Raises:
            ChatChanged: another process removed the last of them.
        """
        with self.transaction():
            for message in covered:
                self._write("UPDATE messages SET hidden = 1 WHERE id = ?", message)
            if not (places := self._rows("SELECT place FROM messages WHERE id = ?", covered[-1])):
                raise _changed(chat)
            place = int(places[0][0])
            return self.add(chat, "user", request, place=place), self.add(chat, "assistant", summary, "stop", place)

    def set_model(self, chat: str, model: str, system: str | None) -> None:
        """Store the model and the system message that a chat uses from now on."""
        kept = system if system is None else _clean(system)
        self._write("UPDATE chats SET model = ?, system = ? WHERE id = ?", model, kept, chat)

    def set_docs(self, chat: str, docs: str | None) -> None:
        """Store which documents the questions of a chat are put to from now on."""
        self._write("UPDATE chats SET docs = ? WHERE id = ?", docs, chat)

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
            "SELECT id, role, content, created, finish_reason, hidden, citations, calls FROM messages WHERE chat = ? "
            "ORDER BY place, id",
            chat,
        )
        return [SavedMessage(*(*row[:-2], _citations(row[-2]), calls_from(row[-1]))) for row in rows]

    def recent_questions(self, limit: int = 500) -> list[str]:
        """The latest questions of all chats, newest first: the history of the prompt."""
        rows = self._rows("SELECT content FROM messages WHERE role = 'user' ORDER BY id DESC LIMIT ?", limit)
        return [str(row[0]) for row in rows]

    def search(self, query: str, limit: int = 50) -> list[Found]:
        """Messages that contain all words of the query, in the text or in one of its calls; the newest first.

        Case does not matter.
        """
        words = query.replace("\0", " ").split()
        if not words:
            raise UsageError("there is nothing to search for", hint="edgellm chats search WORD")
        conditions: list[str] = []
        values: list[str] = []
        for word in words:
            within = "content LIKE ? ESCAPE '!'"
            if is_long := self.indexed and len(word) >= TRIGRAM:
                within = "messages.id IN (SELECT rowid FROM words WHERE words MATCH ?)"
            conditions.append(f"({within} OR (calls != '' AND calls LIKE ? ESCAPE '!'))")
            quoted = '"' + _clean(word).replace('"', '""') + '"'
            values += [quoted if is_long else f"%{_like(word)}%", f"%{_like(word)}%"]
        where = " AND ".join(conditions)
        rows = self._rows(f"{FOUND} WHERE {where} ORDER BY messages.id DESC LIMIT ?", *values, limit)
        return [
            Found(
                chat,
                model,
                at,
                role,
                _excerpt(text if words[0].lower() in text.lower() or not calls else calls, words[0]),
            )
            for chat, model, at, role, text, calls in rows
        ]

    def remove(self, chats: Sequence[str]) -> None:
        """Remove chats for good: none of their text stays in the files."""
        with self.transaction():
            for chat in chats:
                self._write("DELETE FROM chats WHERE id = ?", chat)
        if self.indexed:
            self._write("INSERT INTO words (words) VALUES ('rebuild')")
        self._write("VACUUM")
        self._write("PRAGMA wal_checkpoint(TRUNCATE)")

    def _chat(self, row: tuple[Any, ...]) -> SavedChat:
        chat, model, system, created, updated, title, docs, n_messages, begins = row
        title = " ".join((title or begins or "").split())
        short = title if len(title) <= 60 else f"{title[:59]}…"
        return SavedChat(chat, model, system, created, updated, n_messages, short, docs)

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with _failures(self._path):
            return self._db.execute(statement, values).fetchall()

    def _write(self, statement: str, *values: object) -> sqlite3.Cursor:
        with _failures(self._path):
            return self._db.execute(statement, values)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make several writes one: all of them happen, or none."""
        if self._db.in_transaction:
            yield
            return
        with _failures(self._path), transaction(self._db):
            yield

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> ChatStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


FOUND = "SELECT chat, model, messages.created, role, content, calls FROM messages JOIN chats ON chats.id = chat"
CHAT = """SELECT id, model, system, created, updated, title, docs,
 (SELECT count(*) FROM messages WHERE chat = chats.id),
 (SELECT substr(content, 1, 200) FROM messages WHERE chat = chats.id AND role = 'user' ORDER BY place, id LIMIT 1)
 FROM chats"""


def _failures(path: Path) -> contextlib.AbstractContextManager[None]:
    elsewhere = "set EDGELLM_HOME to a directory that you can write to, or chat with --private"
    return failures(path, hint=f"mv {path} {path}.damaged", access_hint=elsewhere)


def _changed(chat: str) -> ChatChanged:
    return ChatChanged(f"chat {chat} has changed meanwhile", hint=f"edgellm chats show {chat}", id=chat)


def _clean(text: str) -> str:
    """Text that can be stored: surrogates from undecodable bytes are replaced."""
    return text.encode(errors="replace").decode()


def _stored(citations: Sequence[Citation]) -> str:
    """Citations as text; empty for none."""
    return _clean(json.dumps([asdict(each) for each in citations], ensure_ascii=False)) if citations else ""


def _citations(stored: str) -> list[Citation]:
    """Citations that were stored; none where they cannot be read."""
    with contextlib.suppress(ValueError, TypeError, LookupError, RecursionError):
        return [
            Citation(**{**each, "lines": each["lines"] and tuple(each["lines"])})
            for each in (json.loads(stored) if stored else ())
        ]
    return []


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
