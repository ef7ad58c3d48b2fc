"""OpenAI's files: uploaded, listed, read and deleted. They lie on this machine, below edgellm's own directory."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from edgellm.serve.documents.stores import VectorStores
from edgellm.serve.documents.uploads import UploadedFile
from edgellm.serve.http.multipart import receive_form
from edgellm.serve.http.openapi import gives, takes
from edgellm.serve.http.problems import Problem
from edgellm.serve.protocols.openai.pages import listed
from edgellm.serve.service import service_of
from edgellm.wire.body import Body

PATH = "/v1/files"
USUAL_PURPOSE = "user_data"


def stores_of(request: Request) -> VectorStores:
    """The documents of the server; a `Problem` (403) if it offers none."""
    stores = service_of(request).documents_for(request)
    if stores is None:
        message = "this server offers no documents; start it with --docs NAME, or --docs all"
        raise Problem(403, message, code="documents-closed")
    return stores


class UploadForm(Body):
    """The fields of the form of POST /v1/files."""

    file: Annotated[str, Field(json_schema_extra={"format": "binary"})]
    purpose: Literal["assistants", "user_data", "batch", "fine-tune", "vision", "evals"] | None = None


@takes(UploadForm, form=True)
async def upload(request: Request) -> Response:
    """POST /v1/files: a form with `file` and `purpose`."""
    stores, most = stores_of(request), service_of(request).options.max_upload
    uploads = stores.uploads
    async with receive_form(request, uploads.directory, most_bytes=most) as form:
        purpose = form.fields.get("purpose") or USUAL_PURPOSE
        if any(name.startswith("expires_after") for name in form.fields):
            raise Problem(400, "expires_after: files stay until they are deleted", code="unsupported-field")
        file = await stores.work(uploads.add, form.path, form.file_name or "", purpose)
    return JSONResponse(described(file))


async def list_files(request: Request) -> Response:
    """GET /v1/files, with `?purpose=`."""
    stores = stores_of(request)
    files = await stores.work(lambda: list(stores.uploads.files()))
    purpose = request.query_params.get("purpose")
    found = [described(file) for file in files if purpose in (None, file.purpose)]
    return JSONResponse(listed(found, request.query_params, usual=10_000, most=10_000))


async def get_file(request: Request) -> Response:
    """GET /v1/files/ID."""
    stores = stores_of(request)
    return JSONResponse(described(await stores.work(stores.uploads.get, request.path_params["id"])))


@gives("application/octet-stream")
async def file_content(request: Request) -> Response:
    """GET /v1/files/ID/content: the file as it was uploaded."""
    stores = stores_of(request)
    file = await stores.work(stores.uploads.get, request.path_params["id"])
    # No page of ours may run what somebody has uploaded.
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox", "Cache-Control": "no-store"}
    return FileResponse(
        file.path, media_type="application/octet-stream", filename=file.path.name, headers=headers,
    )  # fmt: skip


async def delete_file(request: Request) -> Response:
    """DELETE /v1/files/ID: delete a file for good, and what was read of it."""
    stores, file_id = stores_of(request), request.path_params["id"]
    for store in await stores.work(stores.delete, file_id):
        stores.index(store)
    return JSONResponse({"id": file_id, "object": "file", "deleted": True})


def described(file: UploadedFile) -> dict[str, Any]:
    """A file in OpenAI's form."""
    return {
        "id": file.id, "object": "file", "bytes": file.n_bytes, "created_at": file.created,
        "filename": file.path.name, "purpose": file.purpose, "status": "processed", "status_details": None,
        "expires_at": None,
    }  # fmt: skip


ROUTES = [
    Route(PATH, upload, methods=["POST"]),
    Route(PATH, list_files, methods=["GET"]),
    Route(f"{PATH}/{{id}}", get_file, methods=["GET"]),
    Route(f"{PATH}/{{id}}", delete_file, methods=["DELETE"]),
    Route(f"{PATH}/{{id}}/content", file_content, methods=["GET"]),
]
