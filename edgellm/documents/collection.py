"""A collection of documents: one SQLite file with the texts, their words (FTS5) and their vectors.

    with Collection.open(path) as collection:
        with collection.replacing(file) as chunks:
            for chunk in cut(...): chunks.add(chunk, wants_vector=True)
        collection.best_words(["password", "reset"], 50)

Each file is replaced in a transaction of its own, so that the collection is whole after a crash at any moment. Others
may read meanwhile (the log is written ahead). Vectors are added later and may be missing: words find a chunk at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.database import connect, failures, transaction
from edgellm.documents.chunks import TextChunk
from edgellm.documents.words import indexed
from edgellm.errors import CorruptFile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

VERSION = 1
BUSY_SECONDS = 30.0
# The setting that names the collection's reranker; empty for none.
RERANKER = "reranker"
# How much more a word in the file's name or the heading counts than one in the text.
TITLE_WEIGHT = 2.0
# Chunks that are ranked by their words: many more than anyone reads, and few enough for some milliseconds.
MOST_RANKED = 5_000
# Rows that are read together.
TOGETHER = 4096
SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE files (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, name TEXT NOT NULL, size INTEGER NOT NULL,
    changed INTEGER NOT NULL, sha256 TEXT NOT NULL, n_pages INTEGER NOT NULL, n_chunks INTEGER NOT NULL,
    n_tokens INTEGER NOT NULL, notes TEXT NOT NULL, error TEXT NOT NULL
);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY, file INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE, place INTEGER NOT NULL,
    page INTEGER NOT NULL, first_line INTEGER NOT NULL, last_line INTEGER NOT NULL, heading TEXT NOT NULL,
    text TEXT NOT NULL, n_tokens INTEGER NOT NULL, n_repeated INTEGER NOT NULL,
    line_marks TEXT NOT NULL, wants_vector INTEGER NOT NULL
);
CREATE INDEX chunks_of_file ON chunks (file, place);
CREATE INDEX chunks_without_vector ON chunks (id) WHERE wants_vector;
CREATE TABLE vectors (
    id INTEGER PRIMARY KEY, chunk INTEGER NOT NULL REFERENCES chunks (id) ON DELETE CASCADE, vector BLOB NOT NULL
);
CREATE INDEX vectors_of_chunk ON vectors (chunk);
CREATE VIRTUAL TABLE words USING fts5 (title, body, tokenize = 'porter unicode61 remove_diacritics 2');
CREATE VIRTUAL TABLE known USING fts5vocab (words, row);
CREATE TRIGGER chunk_removed AFTER DELETE ON chunks BEGIN DELETE FROM words WHERE rowid = old.id; END;
"""


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was read: `path` is absolute, `name` how it is shown, `changed` its time in nanoseconds."""

    path: str
    name: str
    size: int
    changed: int
    sha256: str


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file of a collection; `notes` say what of it could not be read, `error` why nothing could."""

    path: str
    name: str
    size: int
    changed: int
    sha256: str
    n_pages: int
    n_chunks: int
    n_tokens: int
    notes: list[str]
    error: str


@dataclass(frozen=True, slots=True)
class IndexedChunk:
    """A chunk with its file's name and path; `place` numbers the chunks of a file from 0."""

    id: int
    file: str
    path: str
    place: int
    page: int
    heading: str
    text: str
    n_tokens: int
    n_repeated: int
    lines: tuple[int, int]
    line_marks: list[tuple[int, int]]

    @property
    def title(self) -> str:
        """What stands before the text where it is indexed."""
        return title_of(self.file, self.heading)


class ChunkWriter:
    """Takes the chunks of a file that is being replaced."""

    def __init__(self, db: sqlite3.Connection, file: int, name: str) -> None:
        self._db, self._file, self._name = db, file, name
        self.notes: list[str] = []
        self.n_chunks = self.n_tokens = self.n_pages = 0

    def add(self, chunk: TextChunk, *, wants_vector: bool) -> None:
        """Store a chunk and index its words."""
        row = (
            self._file, self.n_chunks, chunk.page, *chunk.lines, chunk.heading, chunk.text, chunk.n_tokens,
            chunk.n_repeated, json.dumps(chunk.line_marks), wants_vector,
        )  # fmt: skip
        marks = ", ".join("?" * len(row))
        at = self._db.execute(f"INSERT INTO chunks VALUES (NULL, {marks})", row).lastrowid  # noqa: S608
        title = indexed(title_of(self._name, chunk.heading))
        self._db.execute("INSERT INTO words (rowid, title, body) VALUES (?, ?, ?)", (at, title, indexed(chunk.text)))
        self.n_chunks += 1
        self.n_tokens += chunk.n_tokens
        self.n_pages = max(self.n_pages, chunk.page)


class Collection:
    """An open collection."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self.path = path

    @classmethod
    def open(cls, path: Path) -> Collection:
        """Open a collection; an empty one is made if there is none.

        Raises:
            CorruptFile: the file is no collection, is damaged, or was made by a newer version.
            FileAccessError: it cannot be read or written.
        """
        with failures(path, hint=_hint(path)):
            db = connect(path, schema=SCHEMA, version=VERSION, busy_seconds=BUSY_SECONDS)
        return cls(db, path)

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def setting(self, name: str) -> str | None:
        """A setting of the collection."""
        found = self._rows("SELECT value FROM settings WHERE name = ?", name)
        return str(found[0][0]) if found else None

    def set(self, name: str, value: str) -> None:
        """Store a setting."""
        with self._failures():
            self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    @contextlib.contextmanager
    def replacing(self, file: FileState) -> Iterator[ChunkWriter]:
        """Replace the chunks of a file; if the block fails, the old ones stay."""
        with self._transaction():
            self._db.execute("DELETE FROM files WHERE path = ?", (file.path,))
            row = (file.path, file.name, file.size, file.changed, file.sha256)
            at = self._db.execute("INSERT INTO files VALUES (NULL, ?, ?, ?, ?, ?, 0, 0, 0, '', '')", row).lastrowid
            writer = ChunkWriter(self._db, int(at or 0), file.name)
            yield writer
            counts = (writer.n_pages, writer.n_chunks, writer.n_tokens, "\n".join(writer.notes), at)
            self._db.execute("UPDATE files SET n_pages = ?, n_chunks = ?, n_tokens = ?, notes = ? WHERE id = ?", counts)

    def put_unreadable(self, file: FileState, error: str) -> None:
        """Remember that a file cannot be read, so that it is tried again only when it changes."""
        with self._transaction():
            self._db.execute("DELETE FROM files WHERE path = ?", (file.path,))
            row = (file.path, file.name, file.size, file.changed, file.sha256, error)
            self._db.execute("INSERT INTO files VALUES (NULL, ?, ?, ?, ?, ?, 0, 0, 0, '', ?)", row)

    def touch(self, path: str, changed: int) -> None:
        """Note that a file is the same although its time changed."""
        with self._failures():
            self._db.execute("UPDATE files SET changed = ? WHERE path = ?", (changed, path))

    def remove(self, paths: Sequence[str]) -> None:
        """Forget files and their chunks."""
        with self._transaction():
            self._db.executemany("DELETE FROM files WHERE path = ?", [(path,) for path in paths])

    def files(self) -> list[IndexedFile]:
        """All files, by name."""
        names = ("path", "name", "size", "changed", "sha256", "n_pages", "n_chunks", "n_tokens", "error", "notes")
        rows = self._rows(f"SELECT {', '.join(names)} FROM files ORDER BY name")  # noqa: S608
        return [IndexedFile(**dict(zip(names[:-1], row[:-1], strict=True)), notes=row[-1].splitlines()) for row in rows]

    @property
    def n_chunks(self) -> int:
        """How many chunks there are."""
        return self._number("SELECT count(*) FROM chunks")

    @property
    def has_vectors(self) -> bool:
        """Whether any chunk has a vector."""
        return bool(self._number("SELECT EXISTS (SELECT 1 FROM vectors)"))

    @property
    def n_without_vector(self) -> int:
        """How many chunks wait for their vectors."""
        return self._number("SELECT count(*) FROM chunks WHERE wants_vector")

    def waiting(self) -> dict[str, int]:
        """How many chunks of each file, by its path, wait for their vectors."""
        rows = self._rows(
            "SELECT path, count(*) FROM chunks JOIN files ON files.id = chunks.file WHERE wants_vector GROUP BY path"
        )
        return {str(row[0]): int(row[1]) for row in rows}

    def without_vector(self, most: int) -> list[IndexedChunk]:
        """The next chunks that wait for their vectors."""
        return self._chunks("WHERE wants_vector ORDER BY chunks.id LIMIT ?", (most,))

    def put_vectors(self, vectors: Sequence[tuple[int, npt.NDArray[np.float16]]]) -> None:
        """Store vectors of chunks: several of one chunk if its embedder reads less than it holds."""
        with self._transaction():
            known = {row[0] for row in self._db.execute(
                f"SELECT id FROM chunks WHERE wants_vector AND id IN ({','.join('?' * len(vectors))})",  # noqa: S608
                [chunk for chunk, _ in vectors],
            )}  # fmt: skip
            rows = [(chunk, vector.tobytes()) for chunk, vector in vectors if chunk in known]
            self._db.executemany("INSERT INTO vectors VALUES (NULL, ?, ?)", rows)
            self._db.executemany("UPDATE chunks SET wants_vector = 0 WHERE id = ?", [(chunk,) for chunk in known])

    def renew_vectors(self, wanted: Callable[[str], bool], most: int) -> None:
        """Drop all vectors; the first `most` chunks of a file wait for new ones if their text is `wanted`."""
        with self._transaction():
            self._db.execute("DELETE FROM vectors")
            self._db.create_function("wanted", 1, wanted, deterministic=True)
            self._db.execute("UPDATE chunks SET wants_vector = place < ? AND wanted(text)", (most,))

    def vectors(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]:
        """The chunk of each vector [n], and the vectors [n, n_embd].

        Raises:
            CorruptFile: they are of different lengths.
        """
        import numpy as np

        with self._transaction("BEGIN"):  # counts and rows of one moment
            n_vectors = self._db.execute("SELECT count(*) FROM vectors").fetchone()[0]
            n_bytes = (self._db.execute("SELECT length(vector) FROM vectors LIMIT 1").fetchone() or [0])[0]
            owners, vectors = np.empty(n_vectors, np.int64), np.empty((n_vectors, n_bytes // 2), np.float16)
            rows = self._db.execute("SELECT chunk, vector FROM vectors ORDER BY id")
            for at in range(0, n_vectors, TOGETHER):  # all rows together would take twice the memory
                chunks, blobs = zip(*rows.fetchmany(TOGETHER), strict=True)
                if any(len(blob) != n_bytes for blob in blobs) or n_bytes % 2:
                    why = "its vectors are of different lengths"
                    raise CorruptFile(f"{self.path.name} is damaged", why=why, hint=_hint(self.path))
                owners[at : at + TOGETHER] = chunks
                vectors[at : at + TOGETHER] = np.frombuffer(b"".join(blobs), np.float16).reshape(len(blobs), -1)
        return owners, vectors

    @property
    def generation(self) -> tuple[int, int]:
        """Changes whenever another process has written (for those who keep `vectors`)."""
        version = self._number("PRAGMA data_version")
        return version, self._db.total_changes

    @property
    def content(self) -> str:
        """A hash of all files and of how they are indexed: as long as it is the same, so are the passages found."""
        rows = self._rows("SELECT name, sha256, error, n_chunks FROM files ORDER BY name, path")
        reranker = self.setting(RERANKER)
        state = [rows, self.has_vectors, self.n_without_vector, *([reranker] if reranker else [])]
        return hashlib.sha256(json.dumps(state).encode()).hexdigest()

    def best_words(self, terms: Sequence[str], most: int) -> list[tuple[int, float]]:
        """The chunks in which these words weigh most (BM25), best first, with their scores.

        Among many chunks the rarest words come first, as many as `MOST_RANKED` chunks have: what stands everywhere
        tells little and costs most. If that is not enough, chunks follow that have three of the other words together.
        """
        if not terms:
            return []
        quoted = ['"' + term.replace('"', '""') + '"' for term in terms]
        if self._number("SELECT max(id) FROM chunks") <= MOST_RANKED:
            return self._ranked(" OR ".join(quoted), most)
        counts = sorted((count, term) for term in quoted if (count := self._n_with(term)))
        sums = accumulate(count for count, _ in counts)
        telling = [term for (_, term), total in zip(counts, sums, strict=True) if total <= MOST_RANKED]
        others = [term for _, term in counts[len(telling) :]]
        found = self._ranked(" OR ".join(telling), most) if telling else []
        together = " AND ".join(others[:3])
        for expression in (f"title: ({together})", together, *others[:1]) if others else ():
            if len(found) < most:
                known = {chunk for chunk, _ in found}
                found += [each for each in self._ranked(expression, most) if each[0] not in known]
        return found[:most]

    def _n_with(self, term: str) -> int:
        """How many chunks have a word; more than `MOST_RANKED` are not counted."""
        count = "SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT ?)"
        return self._number(count, term, MOST_RANKED + 1)

    def _ranked(self, sought: str, most: int) -> list[tuple[int, float]]:
        """The best of the chunks that an expression finds, of at most the first `MOST_RANKED`."""
        rows = self._rows(
            "SELECT id, score FROM (SELECT rowid AS id, -bm25(words, ?, 1.0) AS score FROM words WHERE words MATCH ? "
            "LIMIT ?) ORDER BY score DESC LIMIT ?",
            TITLE_WEIGHT,
            sought,
            MOST_RANKED,
            most,
        )
        return [(int(row[0]), float(row[1])) for row in rows]

    def n_with(self, word: str) -> int:
        """How many chunks have a word in any of its forms, or the words of a name beside each other."""
        sought = '"' + indexed(word).replace('"', '""') + '"'
        return self._number("SELECT count(*) FROM words WHERE words MATCH ?", sought)

    def chunks(self, ids: Sequence[int]) -> dict[int, IndexedChunk]:
        """Chunks by their ids; one that is gone meanwhile is missing."""
        found = self._chunks(f"WHERE chunks.id IN ({','.join('?' * len(ids))})", list(ids))
        return {chunk.id: chunk for chunk in found}

    def chunks_of(self, path: str, first: int, most: int) -> list[IndexedChunk]:
        """The chunks of a file in order, from the place `first` on."""
        where = "WHERE path = ? AND place >= ? ORDER BY place LIMIT ?"
        return self._chunks(where, (path, first, most))

    def _chunks(self, where: str, values: Sequence[object]) -> list[IndexedChunk]:
        names = ("id", "file", "path", "place", "page", "heading", "text", "n_tokens", "n_repeated")
        rows = self._rows(
            "SELECT chunks.id, name, path, place, page, heading, text, chunks.n_tokens, n_repeated, "  # noqa: S608
            f"first_line, last_line, line_marks FROM chunks JOIN files ON files.id = chunks.file {where}",
            *values,
        )
        with self._failures():
            return [
                IndexedChunk(**dict(zip(names, row[:9], strict=True)), lines=row[9:11], line_marks=json.loads(row[11]))
                for row in rows
            ]

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._failures():
            return self._db.execute(query, values).fetchall()

    def _number(self, query: str, *values: object) -> int:
        return int(self._rows(query, *values)[0][0] or 0)

    @contextlib.contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        with self._failures(), transaction(self._db, begin):
            yield

    def _failures(self) -> contextlib.AbstractContextManager[None]:
        return failures(self.path, hint=_hint(self.path))


def title_of(name: str, heading: str) -> str:
    """A file's name and a heading, as words."""
    return f"{name.translate(_SEPARATORS)} {heading}"


_SEPARATORS = str.maketrans("/\\_-.", "     ")


def _hint(path: Path) -> str:
    return f"edgellm docs rm {path.stem}, and add the documents again"
