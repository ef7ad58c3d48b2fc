"""The files that clients have uploaded, ID/PURPOSE/NAME below one directory: a file is there whole or not at all.

    file = uploads.add(arrived, "manual.pdf", "assistants")
    uploads.attach(file, "manuals")

An empty file ID/in/COLLECTION says that a file belongs to a collection. So a request never waits for the collection,
which is being written for minutes while a large file is read.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgellm.documents.index import shown
from edgellm.files import sync_directory, write_atomically
from edgellm.serve.http.problems import Problem

PREFIX = "file-"
MOST_FILES = 10_000
# Most file systems take 255 bytes.
MOST_NAME_BYTES = 200
# What has not become a file after this time never will.
LEFT_SECONDS = 86_400
# The folder of the collections that a file is in.
MEMBERSHIP = "in"
PURPOSES = ("assistants", "user_data", "batch", "fine-tune", "vision", "evals")
_BATCH_ID = re.compile(r"vsfb_[0-9a-f]{24}")
_ID = re.compile(rf"{PREFIX}[0-9a-f]{{24}}")


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file; `created` in seconds since 1970."""

    id: str
    path: Path
    purpose: str
    n_bytes: int
    created: int


class Uploads:
    """All uploaded files of a user."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def add(self, arrived: Path, name: str, purpose: str) -> UploadedFile:
        """Move a file that has arrived, of the same file system, to where it stays.

        Raises:
            Problem: it is empty, its purpose is none, or there are too many files.
        """
        if purpose not in PURPOSES:
            message = f"purpose: {purpose[:60]!r} is none; known are {', '.join(PURPOSES)}"
            raise Problem(400, message, code="bad-field", field="purpose")
        if not arrived.stat().st_size:
            raise Problem(400, "the file is empty", code="bad-field", field="file")
        if sum(1 for _ in self.files()) >= MOST_FILES:
            message = f"there are {MOST_FILES:,} files already; delete some: DELETE /v1/files/ID"
            raise Problem(400, message, code="too-many-files", field="file")
        file_id = f"{PREFIX}{secrets.token_hex(12)}"
        making = self.directory / f".{file_id}"
        try:
            (making / purpose).mkdir(parents=True)
            arrived.rename(making / purpose / safe_name(name))
            making.rename(self.directory / file_id)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        sync_directory(self.directory)
        return self.get(file_id)

    def files(self) -> Iterator[UploadedFile]:
        """All files, in no order."""
        for directory in self.directory.glob(f"{PREFIX}*"):
            if (file := self._file(directory)) is not None:
                yield file

    def get(self, file_id: str) -> UploadedFile:
        """The file with that id; a `Problem` (404) without it."""
        file = self._file(self.directory / file_id) if _ID.fullmatch(file_id) else None
        if file is None:
            raise no_file(file_id)
        return file

    def attach(self, file: UploadedFile, collection: str) -> None:
        """Put a file into a collection."""
        folder = self.directory / file.id / MEMBERSHIP
        folder.mkdir(exist_ok=True)
        (folder / collection).touch()

    def detach(self, file: UploadedFile, collection: str) -> None:
        """Take a file out of a collection."""
        (self.directory / file.id / MEMBERSHIP / collection).unlink(missing_ok=True)

    def collections(self, file: UploadedFile) -> list[str]:
        """The collections that a file is in."""
        return sorted(each.name for each in (self.directory / file.id / MEMBERSHIP).glob("*"))

    def members(self, collection: str) -> dict[str, UploadedFile]:
        """The files of a collection by their paths; `created` is when they were put into it."""
        found: dict[str, UploadedFile] = {}
        for mark in self.directory.glob(f"{PREFIX}*/{MEMBERSHIP}/{collection}"):
            with contextlib.suppress(OSError):
                if (file := self._file(mark.parents[1])) is not None:
                    found[str(file.path)] = replace(file, created=int(mark.stat().st_mtime))
        return found

    def put_batch(self, collection: str, files: Sequence[str]) -> str:
        """Remember which files were put into a collection together; returns the name of the batch."""
        name = f"vsfb_{secrets.token_hex(12)}"
        about = {"collection": collection, "created": int(time.time()), "files": list(files)}
        self._batch(name).parent.mkdir(exist_ok=True)
        write_atomically(self._batch(name), json.dumps(about).encode())
        return name

    def batch(self, collection: str, name: str) -> tuple[int, list[str]]:
        """When files came together, and their ids; a `Problem` (404) for a name that is not known."""
        with contextlib.suppress(OSError, ValueError):
            about = json.loads(self._batch(name).read_bytes()) if _BATCH_ID.fullmatch(name) else {}
            if about.get("collection") == collection:
                return int(about["created"]), list(about["files"])
        raise Problem(404, f"there is no batch {name[:60]!r}", code="batch-not-found", field="batch_id")

    def _batch(self, name: str) -> Path:
        return self.directory / "batches" / f"{name}.json"

    def id_of(self, path: Path) -> str | None:
        """The id of an uploaded file by its path; None for any other path."""
        parents = path.parents
        return parents[1].name if len(parents) > 2 and parents[2] == self.directory else None

    def remove(self, file: UploadedFile) -> None:
        """Delete a file for good. First it is renamed, so that half a deletion leaves nothing that is found."""
        gone = self.directory / f".{file.id}"
        (self.directory / file.id).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def clean(self) -> None:
        """Remove what a server that was killed has left; another one may be receiving files now."""
        for each in self.directory.glob(".*"):
            with contextlib.suppress(OSError):
                if time.time() - each.stat().st_mtime > LEFT_SECONDS:
                    shutil.rmtree(each) if each.is_dir() else each.unlink()

    @staticmethod
    def _file(directory: Path) -> UploadedFile | None:
        try:
            for path in directory.glob("*/*"):
                if path.parent.name == MEMBERSHIP:
                    continue
                about = path.stat()
                return UploadedFile(directory.name, path, path.parent.name, about.st_size, int(about.st_mtime))
        except OSError:
            pass  # it is being deleted
        return None


def safe_name(name: str) -> str:
    """A client's name for a file as one that can stand in a directory: its last part, on one line, not too long."""
    line = shown(re.split(r"[/\\]", name)[-1]).replace("\\", "_").strip().lstrip(".")
    ending = Path(line).suffix[:16]
    kept = line.removesuffix(ending).encode()[: MOST_NAME_BYTES - len(ending.encode())].decode("utf-8", "ignore")
    return kept + ending or "file"


def no_file(file_id: str) -> Problem:
    """The error for an id that no file has."""
    return Problem(404, f"there is no file {file_id[:60]!r}", code="file-not-found", field="file_id")
