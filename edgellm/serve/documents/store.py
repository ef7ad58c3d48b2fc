"""One collection of a server as a vector store: searched, shown, and filled from uploaded files.

Its methods read SQLite, so they are for threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgellm.documents.collection import RERANKER, Collection, IndexedChunk, IndexedFile
from edgellm.documents.embedder import ChunkEmbedder
from edgellm.documents.index import EMBEDDER, add_roots, remove_roots, roots_of, update
from edgellm.documents.reranker import ChunkReranker
from edgellm.documents.search import Searcher
from edgellm.errors import EngineError
from edgellm.progress import Progress
from edgellm.serve.documents.uploads import UploadedFile, Uploads, no_file
from edgellm.serve.http.problems import Problem

USUAL_PASSAGES = 5
# Settings of a collection that was made over HTTP.
CREATED, TITLE, METADATA = "created", "title", "metadata"

log = logging.getLogger("edgellm.serve")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """A file of a store. `status` is `in_progress`, `completed` or `failed`; `created` in seconds since 1970.

    `n_waiting` of its chunks wait for their vectors; words find them already. An `is_upload` came over HTTP.
    """

    id: str
    name: str
    path: str
    n_bytes: int
    created: int
    status: str
    error: str = ""
    notes: tuple[str, ...] = ()
    n_pages: int = 0
    n_chunks: int = 0
    n_waiting: int = 0
    is_upload: bool = False


class VectorStore:
    """One collection; its methods are for threads. It keeps its vectors in memory once it has been searched.

    `created` is when it was made, in seconds since 1970. It `is_ours` if it was made over HTTP; others are changed on
    the machine itself. `progress` says what is being done while it is read and embedded.
    """

    def __init__(
        self,
        name: str,
        collection: Collection,
        uploads: Uploads,
        embedder: Callable[[str], ChunkEmbedder | None],
        reranker: Callable[[str], ChunkReranker | None],
    ) -> None:
        self.name = name
        self.id = id_of("vs_", name)
        self.path = collection.path
        about = collection.path.stat()
        self.node = about.st_ino
        created = collection.setting(CREATED)
        self.created = int(created or about.st_mtime)
        self.is_ours = created is not None
        self.progress: Progress | None = None
        self.is_removed = False
        self._collection, self._uploads, self._embedder, self._reranker = collection, uploads, embedder, reranker
        self._searcher: Searcher | None = None
        self._lock = threading.Lock()

    @property
    def embedder_name(self) -> str:
        """The embedding model; empty before there is one."""
        return self._setting(EMBEDDER) or ""

    @property
    def title(self) -> str:
        """What people call it."""
        return self._setting(TITLE) or self.name

    @property
    def takes_uploads(self) -> bool:
        """Whether it has files that came over HTTP, or was made for them."""
        return self.is_ours or bool(self._uploads.members(self.name))

    @property
    def metadata(self) -> dict[str, str]:
        """What its maker noted."""
        return dict(json.loads(self._setting(METADATA) or "{}"))

    def rename(self, title: str | None, metadata: Mapping[str, str] | None) -> None:
        """Change what people call it, and what is noted."""
        with Collection.open(self.path) as collection:  # its own: it may wait for the thread that writes
            if title is not None:
                collection.set(TITLE, title)
            if metadata is not None:
                collection.set(METADATA, json.dumps(metadata))

    def groups(self, question: str, most: int) -> list[tuple[list[IndexedChunk], float]]:
        """The passages that fit a question best, as groups of chunks, with scores."""
        members = self._uploads.members(self.name)
        with self._used():
            searcher = self._prepared()
            try:
                candidates = searcher.candidates(question, most)
            except (Problem, EngineError) as error:
                log.warning("documents %s: searched by words alone: %s", self.name, error)
                candidates = Searcher(self._collection, None).candidates(question, most)
        found = searcher.arranged(question, candidates, most)  # reranking may take long: nobody waits for it
        return [(group, score) for group, score in found if self._is_here(group[0].path, members)]

    def find(self, use: Callable[[Collection], Result]) -> Result:
        """Use the collection; others wait."""
        with self._used() as collection:
            return use(collection)

    def files(self) -> list[DocumentFile]:
        """All files by name, those that are still to be read too."""
        members = self._uploads.members(self.name)
        with self._used() as collection:
            indexed, waiting = collection.files(), collection.waiting()
        known = {each.path for each in indexed}
        stored = [
            self._indexed(each, members.get(each.path), waiting.get(each.path, 0))
            for each in indexed
            if self._is_here(each.path, members)
        ]
        stored += [_coming(each) for path, each in members.items() if path not in known]
        return sorted(stored, key=lambda each: (each.name, each.id))

    def file(self, file_id: str) -> DocumentFile:
        """The file with that id; a `Problem` (404) without it."""
        found = next((each for each in self.files() if each.id == file_id), None)
        if found is None:
            raise no_file(file_id)
        return found

    def file_id(self, path: str) -> str:
        """The id of a file by its path."""
        return self._uploads.id_of(Path(path)) or id_of("file-", path)

    def chunks_of(self, file: DocumentFile, first: int, most: int) -> list[IndexedChunk]:
        """The chunks of a file in order."""
        return self.find(lambda collection: collection.chunks_of(file.path, first, most))

    def index(self, is_stopped: Callable[[], bool]) -> None:
        """Read and embed what was put into it, and forget what was taken out; the one thread that writes.

        Raises:
            EdgellmError, Problem: it cannot be written, or the embedder has no room now.
        """

        def report(progress: Progress) -> None:
            self.progress = progress

        try:
            with Collection.open(self.path) as collection:
                members = {Path(path) for path in self._uploads.members(self.name)}
                known = {Path(file.path) for file in collection.files()}
                own = {path for path in known.union(roots_of(collection)) if self._uploads.id_of(path)}
                if own - members:
                    remove_roots(collection, sorted(own - members))
                    collection.remove([str(path) for path in own - members])
                new = sorted(members - known)
                if not new and not collection.n_without_vector:
                    return
                self.progress = Progress("reading", 0, len(new))
                add_roots(collection, [path for path in new if path.exists()])
                name = collection.setting(EMBEDDER) or ""
                update(
                    collection, self._embedder(name), only=new, report=report,
                    interrupted=lambda: self.is_removed or is_stopped(),
                )  # fmt: skip
        finally:
            self.progress = None

    def close(self) -> None:
        """Close the collection."""
        self.is_removed = True
        with self._lock:
            self._collection.close()

    @contextlib.contextmanager
    def _used(self) -> Iterator[Collection]:
        with self._lock:
            if self.is_removed:
                raise no_store(self.id)
            yield self._collection

    def _setting(self, name: str) -> str | None:
        return self.find(lambda collection: collection.setting(name))

    def _prepared(self) -> Searcher:
        if self._searcher is None:
            embedder = self._embedder(self._collection.setting(EMBEDDER) or "")
            reranker = self._reranker(self._collection.setting(RERANKER) or "")
            searcher = Searcher(self._collection, embedder, reranker)
            if not self._collection.has_vectors:
                return searcher  # its first file is being read: soon there is an embedder
            self._searcher = searcher
        return self._searcher

    def _is_here(self, path: str, members: Mapping[str, UploadedFile]) -> bool:
        """Whether a file has not been taken out; its chunks may stay until they are removed."""
        return path in members or self._uploads.id_of(Path(path)) is None

    def _indexed(self, file: IndexedFile, uploaded: UploadedFile | None, n_waiting: int) -> DocumentFile:
        is_busy = n_waiting > 0 and self.progress is not None
        return DocumentFile(
            self.file_id(file.path), file.name, file.path, file.size,
            uploaded.created if uploaded else file.changed // 10**9,
            "failed" if file.error else "in_progress" if is_busy else "completed",
            file.error, tuple(file.notes), file.n_pages, file.n_chunks, n_waiting, uploaded is not None,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DocumentScope:
    """What a request asks of documents: the store, and how many passages to answer from.

    `lists_sources`: the answer's text ends with its sources, for clients that know nothing of documents.
    """

    store: VectorStore
    n: int = USUAL_PASSAGES
    lists_sources: bool = True


def id_of(prefix: str, name: str) -> str:
    """An id that stays the same: made of a name."""
    return prefix + hashlib.sha256(name.encode()).hexdigest()[:24]


def no_store(store_id: str) -> Problem:
    """The error for an id that no store has."""
    message = f"there is no vector store {store_id[:60]!r}"
    return Problem(404, message, code="vector-store-not-found", field="vector_store_id")


def _coming(file: UploadedFile) -> DocumentFile:
    return DocumentFile(
        file.id, file.path.name, str(file.path), file.n_bytes, file.created, "in_progress", is_upload=True
    )
