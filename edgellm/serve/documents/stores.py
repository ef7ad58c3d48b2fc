"""The collections that a server offers, as OpenAI's vector stores: searched, shown, and filled from uploaded files.

    stores = VectorStores(shelf, uploads, names=("manuals",), embedder=...)
    store = stores.named("manuals")
    await stores.work(store.search, "how long is the warranty?", 5)

What a store does reads SQLite, so it runs in threads (`work`). One more thread reads and embeds what was uploaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from edgellm.documents.embedder import ChunkEmbedder
from edgellm.documents.reranker import ChunkReranker
from edgellm.documents.shelf import Shelf
from edgellm.errors import CorruptFile, EdgellmError
from edgellm.serve.documents.embedder import Bridge
from edgellm.serve.documents.store import CREATED, METADATA, TITLE, VectorStore, id_of, no_store
from edgellm.serve.documents.uploads import UploadedFile, Uploads
from edgellm.serve.http.problems import Problem

# `serve --docs all`.
ALL = "all"
# Threads that search; each waits for the embedder most of its time.
N_SEARCHERS = 4
MOST_STORES = 1000
# After a failure that may pass, the embedder that had no room for example.
AGAIN_SECONDS = 10.0

log = logging.getLogger("edgellm.serve")
Given = ParamSpec("Given")
Result = TypeVar("Result")


class VectorStores:
    """The stores of a server: those of `names`, or all, and those that were made over HTTP.

    Who runs the loop opens the `bridge` before `run`, and closes it before `stop`.
    """

    def __init__(
        self,
        shelf: Shelf,
        uploads: Uploads,
        names: Sequence[str],
        embedder: Callable[[str], ChunkEmbedder | None],
        bridge: Bridge,
        reranker: Callable[[str], ChunkReranker | None] = lambda _: None,
    ) -> None:
        self.uploads = uploads
        self.bridge = bridge
        self._shelf, self._names, self._embedder = shelf, names, embedder
        self._reranker = reranker
        self._open: dict[str, VectorStore] = {}
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(N_SEARCHERS, "documents")
        self._reader = ThreadPoolExecutor(1, "documents-reader")
        self._waiting: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._is_stopped = self._is_reading = False

    async def work(self, do: Callable[Given, Result], *given: Given.args, **named: Given.kwargs) -> Result:
        """Do something in a thread of the documents' own: those of others must not wait for the embedder."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: do(*given, **named))

    def all(self) -> list[VectorStore]:
        """All stores by name; one that cannot be opened is left out, and logged."""
        found = []
        for name in self._shelf.names():
            try:
                store = self._opened(name)
            except EdgellmError as error:
                log.warning("documents: %s", error)
                continue
            if store is not None:
                found.append(store)
        return found

    def named(self, name: str) -> VectorStore:
        """The store of a collection; raises `CollectionNotFound` if it is not offered."""
        self._shelf.require(name)
        store = self._opened(name)
        if store is None:
            raise Problem(404, f"the documents {name!r} are not served", code="documents-not-found", field="model")
        return store

    def get(self, store_id: str) -> VectorStore:
        """The store with that id; a `Problem` (404) without it."""
        name = next((name for name in self._shelf.names() if id_of("vs_", name) == store_id), None)
        store = self._opened(name) if name else None
        if store is None:
            raise no_store(store_id)
        return store

    def create(self, title: str, metadata: Mapping[str, str]) -> VectorStore:
        """Make an empty store. Its collection gets a name made of the title."""
        with self._lock:
            names = set(self._shelf.names())
            if len(names) >= MOST_STORES:
                raise Problem(400, f"there are {MOST_STORES:,} collections already", code="too-many-stores")
            base = re.sub(r"[^\w.-]+", "-", title).strip("-.")[:48].lower() or "documents"
            name = next(each for each in _numbered(base) if each not in names)
            for gone in self.uploads.members(name).values():  # of a collection that was removed on the machine
                self.uploads.detach(gone, name)
            with self._shelf.make(name) as collection:
                collection.set(TITLE, title)
                collection.set(METADATA, json.dumps(metadata))
                collection.set(CREATED, str(int(time.time())))
        return self.named(name)

    def remove(self, store: VectorStore, *, with_files: bool = False) -> None:
        """Delete a store that was made over HTTP. Its files stay, or those `with_files` that no other store has go."""
        _require_ours(store, "edgellm docs rm")
        with self._lock:
            self._open.pop(store.name, None)
            store.close()
            self._shelf.remove(store.name)
        for file in self.uploads.members(store.name).values():
            self._detach(file, store, with_file=with_files)

    def attach(self, store: VectorStore, file_ids: Sequence[str]) -> None:
        """Put uploaded files into a store; then `index` it."""
        for file in [self.uploads.get(each) for each in file_ids]:
            self.uploads.attach(file, store.name)

    def detach(self, store: VectorStore, file_id: str, *, with_file: bool = False) -> None:
        """Take an uploaded file out of a store; `with_file` deletes it if no other store has it."""
        store.file(file_id)
        if all(each.id != file_id for each in self.uploads.members(store.name).values()):
            raise Problem(403, "this file is no upload; remove it on the machine itself", code="not-over-http")
        self._detach(self.uploads.get(file_id), store, with_file=with_file)

    def _detach(self, file: UploadedFile, store: VectorStore, *, with_file: bool) -> None:
        self.uploads.detach(file, store.name)
        if with_file and not self.uploads.collections(file):
            self.uploads.remove(file)

    def delete(self, file_id: str) -> list[VectorStore]:
        """Delete an uploaded file; returns the stores that it was in, to be indexed."""
        file = self.uploads.get(file_id)
        names = self.uploads.collections(file)
        self.uploads.remove(file)
        return [store for store in self.all() if store.name in names]

    def index(self, store: VectorStore) -> None:
        """Have a store read what is new in it, soon; to be called in the loop."""
        self._waiting[store.name] = None
        self._wake.set()

    async def run(self) -> None:
        """Read and embed what comes, until cancelled; first what a server before this one has left."""
        await self.work(self.uploads.clean)
        for store in await self.work(lambda: [each for each in self.all() if each.takes_uploads]):
            self.index(store)
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                name = next(iter(self._waiting))
                del self._waiting[name]
                await self._index(name)

    @property
    def is_busy(self) -> bool:
        """Whether something is read, or waits to be."""
        return self._is_reading or bool(self._waiting)

    async def _index(self, name: str) -> None:
        loop = asyncio.get_running_loop()

        def index() -> None:
            self.named(name).index(lambda: self._is_stopped)

        self._is_reading = True
        try:
            await loop.run_in_executor(self._reader, index)
        except (EdgellmError, Problem) as error:
            log.error("documents %s: %s", name, error)
            if not isinstance(error, CorruptFile) and name in self._shelf.names():
                loop.call_later(AGAIN_SECONDS, self._again, name)
        except Exception:
            log.exception("the documents %s", name)
        finally:
            self._is_reading = False

    def _again(self, name: str) -> None:
        self._waiting[name] = None
        self._wake.set()

    async def stop(self) -> None:
        """End what the threads do, and close all."""
        self._is_stopped = True
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        for each in (self._reader, self._threads):
            each.shutdown(cancel_futures=True)
        for store in self._open.values():
            store.close()

    def _opened(self, name: str) -> VectorStore | None:
        """The open store of a collection that is here; None if it is not offered."""
        path = self._shelf.path(name)
        with self._lock:
            known = self._open.get(name)
            if known is not None:
                with contextlib.suppress(OSError):
                    if path.stat().st_ino == known.node:
                        return known if self._offers(known) else None
                self._open.pop(name).close()  # it was removed, and another one made
            store = VectorStore(name, self._shelf.open(name), self.uploads, self._embedder, self._reranker)
            self._open[name] = store
            return store if self._offers(store) else None

    def _offers(self, store: VectorStore) -> bool:
        return ALL in self._names or store.name in self._names or store.is_ours


def _numbered(base: str) -> Iterator[str]:
    yield base
    for number in range(2, MOST_STORES + 2):
        yield f"{base}-{number}"


def _require_ours(store: VectorStore, verb: str) -> None:
    if not store.is_ours:
        message = f"{store.name} was not made over HTTP; type on the machine itself: {verb} {store.name}"
        raise Problem(403, message, code="not-over-http")
