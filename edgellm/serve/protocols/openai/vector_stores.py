"""OpenAI's vector stores: collections of documents, filled from uploaded files and searched.

Besides OpenAI's fields each object has `edgellm`: the collection's name, what is being done, notes about a file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgellm.documents.collection import IndexedChunk
from edgellm.documents.search import passage
from edgellm.serve.answer.from_documents import result
from edgellm.serve.documents.store import DocumentFile, VectorStore
from edgellm.serve.http.openapi import takes
from edgellm.serve.http.problems import Problem
from edgellm.serve.protocols.openai.files import stores_of
from edgellm.serve.protocols.openai.pages import listed, number
from edgellm.serve.service import Service, service_of
from edgellm.serve.workers.catalog import ModelKind
from edgellm.wire.body import Body, parse
from edgellm.wire.fields import Metadata, Name, Text

PATH = "/v1/vector_stores"
STATUSES = ("in_progress", "completed", "failed", "cancelled")
# Chunks of a file that are sent at once.
MOST_CHUNKS, USUAL_CHUNKS = 1000, 200
Title = Annotated[str, Field(min_length=1, max_length=256)]
FileIds = Annotated[list[Name], Field(min_length=1, max_length=2000)]


class ChunkStrategy(Body):
    """How files are cut: as `edgellm docs add` does it."""

    type: Literal["auto"]


class NewStore(Body):
    """POST /v1/vector_stores."""

    name: Title | None = None
    description: Text | None = None
    file_ids: Annotated[list[Name], Field(max_length=2000)] | None = None
    chunking_strategy: ChunkStrategy | None = None
    metadata: Metadata | None = None


class StoreChange(Body):
    """POST /v1/vector_stores/ID."""

    name: Title | None = None
    metadata: Metadata | None = None


class NewStoreFile(Body):
    """POST /v1/vector_stores/ID/files."""

    file_id: Name
    chunking_strategy: ChunkStrategy | None = None


class NewBatch(Body):
    """POST /v1/vector_stores/ID/file_batches: `file_ids`, or `files` with an id each."""

    file_ids: FileIds | None = None
    files: Annotated[list[NewStoreFile], Field(min_length=1, max_length=2000)] | None = None
    chunking_strategy: ChunkStrategy | None = None

    @model_validator(mode="after")
    def _has_one(self) -> NewBatch:
        if (self.file_ids is None) == (self.files is None):
            raise ValueError("either file_ids or files is needed")
        return self

    @property
    def ids(self) -> list[str]:
        """The ids of the files, each once."""
        return list(dict.fromkeys(self.file_ids or [each.file_id for each in self.files or ()]))


class StoreSearch(Body):
    """POST /v1/vector_stores/ID/search."""

    ignored = ("rewrite_query",)
    query: Annotated[Text | Annotated[list[Text], Field(min_length=1, max_length=16)], Field(min_length=1)]
    max_num_results: Annotated[int, Field(ge=1, le=50)] | None = None

    @property
    def question(self) -> str:
        """The queries as one."""
        return self.query if isinstance(self.query, str) else " ".join(self.query)


async def list_stores(request: Request) -> Response:
    """GET /v1/vector_stores."""
    service, stores = service_of(request), stores_of(request)
    found = await stores.work(lambda: [_described(service, store) for store in stores.all()])
    return JSONResponse(listed(found, request.query_params))


@takes(NewStore)
async def create_store(request: Request) -> Response:
    """POST /v1/vector_stores: make a collection, with files in it if `file_ids` names some."""
    service, stores = service_of(request), stores_of(request)
    asked = parse(NewStore, await request.body() or b"{}")

    def create() -> VectorStore:
        for each in asked.file_ids or ():
            stores.uploads.get(each)
        store = stores.create(asked.name or "documents", asked.metadata or {})
        stores.attach(store, asked.file_ids or ())
        return store

    store = await stores.work(create)
    stores.index(store)
    return JSONResponse(await stores.work(_described, service, store))


async def get_store(request: Request) -> Response:
    """GET /v1/vector_stores/ID."""
    return JSONResponse(await stores_of(request).work(_described, service_of(request), await _store(request)))


@takes(StoreChange)
async def change_store(request: Request) -> Response:
    """POST /v1/vector_stores/ID: another name or other metadata."""
    asked, store = parse(StoreChange, await request.body()), await _store(request)
    await stores_of(request).work(store.rename, asked.name, asked.metadata)
    return await get_store(request)


async def delete_store(request: Request) -> Response:
    """DELETE /v1/vector_stores/ID: of a collection that was made over HTTP; its files stay.

    With `?files=delete` files that no other collection has are deleted, too.
    """
    stores, store = stores_of(request), await _store(request)
    await stores.work(stores.remove, store, with_files=_with_files(request))
    return JSONResponse({"id": store.id, "object": "vector_store.deleted", "deleted": True})


@takes(StoreSearch)
async def search_store(request: Request) -> Response:
    """POST /v1/vector_stores/ID/search: the passages that fit best."""
    asked, store = parse(StoreSearch, await request.body()), await _store(request)
    most = asked.max_num_results or 10
    found = await stores_of(request).work(store.groups, asked.question, most)
    results = [_found(result(store, passage(group, score))) for group, score in found]
    page = {"search_query": [asked.question], "data": results, "has_more": False, "next_page": None}
    return JSONResponse({"object": "vector_store.search_results.page", **page})


async def list_store_files(request: Request) -> Response:
    """GET /v1/vector_stores/ID/files, with `?filter=STATUS`."""
    store = await _store(request)
    files = await stores_of(request).work(store.files)
    return JSONResponse(_listed_files(request, store, files))


@takes(NewStoreFile)
async def add_file(request: Request) -> Response:
    """POST /v1/vector_stores/ID/files: put an uploaded file into a collection; it is read in the background."""
    asked, store = parse(NewStoreFile, await request.body()), await _store(request)
    await _attach(request, store, [asked.file_id])
    return await _file_response(request, store, asked.file_id)


async def get_store_file(request: Request) -> Response:
    """GET /v1/vector_stores/ID/files/FILE: whether it has been read, and why not."""
    return await _file_response(request, await _store(request), request.path_params["file_id"])


async def remove_file(request: Request) -> Response:
    """DELETE /v1/vector_stores/ID/files/FILE: take a file out of a collection; it stays uploaded.

    With `?files=delete` it is deleted if no other collection has it.
    """
    stores, store, file_id = stores_of(request), await _store(request), request.path_params["file_id"]
    await stores.work(stores.detach, store, file_id, with_file=_with_files(request))
    stores.index(store)
    return JSONResponse({"id": file_id, "object": "vector_store.file.deleted", "deleted": True})


async def store_file_content(request: Request) -> Response:
    """GET /v1/vector_stores/ID/files/FILE/content: its text, in pieces; `?page=` or `?lines=FIRST-LAST` for a part.

    Each piece has `page`, `lines` and `heading`; its first `n_repeated` characters end the piece before it, too.
    """
    stores, store, asked = stores_of(request), await _store(request), request.query_params
    most = number(asked, "limit", USUAL_CHUNKS, MOST_CHUNKS)
    first = number(asked, "after", 0, 10**9) if asked.get("after") not in (None, "0") else 0
    part = _part(asked.get("page"), asked.get("lines"))

    def read() -> tuple[DocumentFile, list[IndexedChunk], bool]:
        file = store.file(request.path_params["file_id"])
        chunks = store.chunks_of(file, first, 10**6 if part else most + 1)
        chosen = [chunk for chunk in chunks if part is None or _overlaps(chunk, part)]
        return file, chosen[:most], len(chosen) > most

    file, chunks, has_more = await stores.work(read)
    pieces = [
        {
            "type": "text", "text": chunk.text, "index": chunk.place, "page": chunk.page or None,
            "lines": chunk.lines if chunk.lines[0] else None, "heading": chunk.heading,
            "n_repeated": chunk.n_repeated,
        }
        for chunk in chunks
    ]  # fmt: skip
    about = {"file_id": file.id, "filename": file.name, "attributes": {}}
    next_page = str(chunks[-1].place + 1) if has_more else None
    page = {"data": pieces, "content": pieces, "has_more": has_more, "next_page": next_page}
    return JSONResponse({"object": "vector_store.file_content.page", **about, **page})


@takes(NewBatch)
async def create_batch(request: Request) -> Response:
    """POST /v1/vector_stores/ID/file_batches: put several uploaded files into a collection."""
    asked, store = parse(NewBatch, await request.body()), await _store(request)
    await _attach(request, store, asked.ids)
    stores = stores_of(request)
    name = await stores.work(stores.uploads.put_batch, store.name, asked.ids)
    return JSONResponse(await _batch(request, store, name))


async def get_batch(request: Request) -> Response:
    """GET /v1/vector_stores/ID/file_batches/BATCH."""
    return JSONResponse(await _batch(request, await _store(request), request.path_params["batch_id"]))


async def list_batch_files(request: Request) -> Response:
    """GET /v1/vector_stores/ID/file_batches/BATCH/files."""
    stores, store = stores_of(request), await _store(request)

    def found() -> list[DocumentFile]:
        _, ids = stores.uploads.batch(store.name, request.path_params["batch_id"])
        return [file for file in store.files() if file.id in ids]

    return JSONResponse(_listed_files(request, store, await stores.work(found)))


ROUTES = [
    Route(PATH, list_stores, methods=["GET"]),
    Route(PATH, create_store, methods=["POST"]),
    Route(f"{PATH}/{{id}}", get_store, methods=["GET"]),
    Route(f"{PATH}/{{id}}", change_store, methods=["POST"]),
    Route(f"{PATH}/{{id}}", delete_store, methods=["DELETE"]),
    Route(f"{PATH}/{{id}}/search", search_store, methods=["POST"]),
    Route(f"{PATH}/{{id}}/files", list_store_files, methods=["GET"]),
    Route(f"{PATH}/{{id}}/files", add_file, methods=["POST"]),
    Route(f"{PATH}/{{id}}/files/{{file_id}}", get_store_file, methods=["GET"]),
    Route(f"{PATH}/{{id}}/files/{{file_id}}", remove_file, methods=["DELETE"]),
    Route(f"{PATH}/{{id}}/files/{{file_id}}/content", store_file_content, methods=["GET"]),
    Route(f"{PATH}/{{id}}/file_batches", create_batch, methods=["POST"]),
    Route(f"{PATH}/{{id}}/file_batches/{{batch_id}}", get_batch, methods=["GET"]),
    Route(f"{PATH}/{{id}}/file_batches/{{batch_id}}/files", list_batch_files, methods=["GET"]),
]


async def _store(request: Request) -> VectorStore:
    stores = stores_of(request)
    return await stores.work(stores.get, request.path_params["id"])


def _with_files(request: Request) -> bool:
    return request.query_params.get("files") == "delete"


async def _attach(request: Request, store: VectorStore, ids: Sequence[str]) -> None:
    stores = stores_of(request)
    await stores.work(stores.attach, store, ids)
    stores.index(store)


async def _file_response(request: Request, store: VectorStore, file_id: str) -> Response:
    return JSONResponse(_described_file(store, await stores_of(request).work(store.file, file_id)))


async def _batch(request: Request, store: VectorStore, name: str) -> dict[str, Any]:
    stores = stores_of(request)

    def found() -> tuple[int, list[str], list[DocumentFile]]:
        created, ids = stores.uploads.batch(store.name, name)
        return created, ids, [file for file in store.files() if file.id in ids]

    created, ids, files = await stores.work(found)
    counts = _counts(files)
    counts["cancelled"] = len(ids) - len(files)
    return {
        "id": name, "object": "vector_store.files_batch", "created_at": created, "vector_store_id": store.id,
        "status": "in_progress" if counts["in_progress"] else "cancelled" if not files else "completed",
        "file_counts": {**counts, "total": len(ids)},
    }  # fmt: skip


def _described(service: Service, store: VectorStore) -> dict[str, Any]:
    files = store.files()
    counts = _counts(files)
    progress = store.progress
    models = [f"{model.name}@{store.name}" for model in service.pool.catalog if model.kind is ModelKind.CHAT]
    return {
        "id": store.id, "object": "vector_store", "created_at": store.created, "name": store.title,
        "status": "in_progress" if counts["in_progress"] else "completed",
        "file_counts": {**counts, "total": len(files)}, "usage_bytes": sum(file.n_bytes for file in files),
        "last_active_at": int(store.path.stat().st_mtime), "expires_after": None, "expires_at": None,
        "metadata": store.metadata,
        "edgellm": {
            "collection": store.name, "embedder": store.embedder_name or None, "models": models,
            "can_delete": store.is_ours,
            "progress": progress and {
                "stage": progress.stage, "done": progress.done, "total": progress.total, "detail": progress.detail,
            },
        },
    }  # fmt: skip


def _counts(files: Sequence[DocumentFile]) -> dict[str, int]:
    counts = Counter(file.status for file in files)
    return {status: counts[status] for status in STATUSES}


def _described_file(store: VectorStore, file: DocumentFile) -> dict[str, Any]:
    error = {"code": "invalid_file", "message": file.error} if file.error else None
    return {
        "id": file.id, "object": "vector_store.file", "created_at": file.created, "vector_store_id": store.id,
        "status": file.status, "usage_bytes": file.n_bytes, "last_error": error, "attributes": {},
        "chunking_strategy": {"type": "other"},
        "edgellm": {
            "filename": file.name, "pages": file.n_pages, "chunks": file.n_chunks,
            "chunks_without_vector": file.n_waiting, "notes": list(file.notes), "can_delete": file.is_upload,
        },
    }  # fmt: skip


def _listed_files(request: Request, store: VectorStore, files: Sequence[DocumentFile]) -> dict[str, Any]:
    status = request.query_params.get("filter")
    found = [_described_file(store, file) for file in files if status in (None, file.status)]
    return listed(found, request.query_params)


def _found(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "content": [{"type": "text", "text": found.pop("text")}]}


def _part(page: str | None, lines: str | None) -> tuple[str, int, int] | None:
    """The part of a file that is asked for: `page` or `lines`, the first and the last."""
    if not page and not lines:
        return None
    kind, given = ("page", page or "") if page else ("lines", lines or "")
    match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", given, re.ASCII)
    if match is None:
        raise Problem(400, f"{kind}: {given[:20]!r} is no number and no FIRST-LAST", code="bad-field", field=kind)
    return kind, int(match[1]), int(match[2] or match[1])


def _overlaps(chunk: IndexedChunk, part: tuple[str, int, int]) -> bool:
    kind, first, last = part
    begin, end = (chunk.page, chunk.page) if kind == "page" else chunk.lines
    return begin <= last and end >= first
