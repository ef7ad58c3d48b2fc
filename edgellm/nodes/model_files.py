"""Finds the model of a batch on a node, pulls it, or takes a copy from the driver; always checked by its sha256.

    found = find(here, spec)                        # installed, at the same path, or pulled; None: a copy is needed
    with ModelCopy(here, spec) as copy:
        copy.write(0, data)                         # part by part, in order
        local = copy.finish()

A copy is installed like a pulled model: `edgellm list` shows it, and the next batch finds it.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from edgellm.batch.record import is_unchanged
from edgellm.errors import CorruptFile, EdgellmError
from edgellm.files import locked, require_space, sha256_of, sync_directory, sync_file, verify_sha256
from edgellm.models.local.store import InstalledModel, StoredFile
from edgellm.nodes.model_spec import ModelPart, ModelSpec
from edgellm.workspace import LocalModel, Workspace


def find(here: Workspace, spec: ModelSpec) -> LocalModel | None:
    """The model on this node, pulled if the Hub has just these files; None if it must be copied."""
    path = _installed(here, spec) or _at_same_path(spec) or _pulled(here, spec)
    return None if path is None else LocalModel(spec.name, path, spec.recipe)


def _installed(here: Workspace, spec: ModelSpec) -> Path | None:
    wanted = [part.sha256 for part in spec.parts]
    for model in here.store.all():
        if [part.sha256 for part in model.files] == wanted:
            paths = [part.path for part in model.files]
            if is_unchanged(model) or _are(paths, spec):
                return model.path
    return None


def _at_same_path(spec: ModelSpec) -> Path | None:
    """The driver's own file, as on its machine or on a file system that nodes share."""
    paths = [Path(part.path) for part in spec.parts]
    return paths[0] if _are(paths, spec) else None


def _are(paths: Sequence[Path], spec: ModelSpec) -> bool:
    """Whether these files are the model's."""
    pairs = list(zip(paths, spec.parts, strict=True))
    with contextlib.suppress(OSError):
        return all(path.stat().st_size == part.size for path, part in pairs) and all(
            sha256_of(path) == part.sha256 for path, part in pairs
        )
    return False


def _pulled(here: Workspace, spec: ModelSpec) -> Path | None:
    """The model from where the driver's came from, if that has the same files; otherwise the driver sends its own."""
    if here.settings.offline:
        return None
    with contextlib.suppress(EdgellmError):
        plan, asked = here.plan(here.choice(spec.name))
        known = [file.sha256 for file in plan.files]
        if not known and plan.convert is None and plan.choice.file:
            known = [plan.choice.file.sha256]
        if asked and known == [part.sha256 for part in spec.parts]:
            model = here.fetch(plan, None)
            if [part.sha256 for part in model.files] == known:
                return model.path
    return None


class ModelCopy:
    """A copy that arrives in pieces, in order; what is unfinished at the end of the block is deleted."""

    def __init__(self, here: Workspace, spec: ModelSpec) -> None:
        self._here, self._store, self._spec = here, here.store, spec
        self._files: dict[int, IO[bytes]] = {}
        self._partial = [self._store.directory / f"{part.sha256}.{secrets.token_hex(6)}.part" for part in spec.parts]

    def __enter__(self) -> ModelCopy:
        require_space(self._store.directory, self._spec.size, purpose=f"a copy of {self._spec.name}")
        self._store.directory.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, index: int, data: bytes) -> None:
        """Append to the part of that number; CorruptFile if that is more than it has."""
        file = self._file(index)
        if file.tell() + len(data) > self._spec.parts[index].size:
            raise CorruptFile(f"{self._spec.parts[index].name} is longer than it should be")
        file.write(data)

    def _file(self, index: int) -> IO[bytes]:
        if index not in self._files:
            self._files[index] = self._partial[index].open("wb")
        return self._files[index]

    def finish(self) -> LocalModel:
        """Check and install what has arrived; ChecksumMismatch if it is not the driver's file."""
        for index, part in enumerate(self._spec.parts):
            with self._file(index) as file:
                sync_file(file)
            verify_sha256(self._partial[index], part.sha256, hint="start the batch again")
        with locked(self._store.lock_path(self._spec.parts[0].sha256)):
            path = _installed(self._here, self._spec)  # another process may have been quicker
            if path is None:
                name = self._free_name()
                stored = [self._placed(name, index, part) for index, part in enumerate(self._spec.parts)]
                self._store.add(InstalledModel.of(name, stored, "copied for a batch of a cluster"))
                path = stored[0].path
        return LocalModel(self._spec.name, path, self._spec.recipe)

    def _free_name(self) -> str:
        """The model's own name, unless something else has it."""
        first = self._spec.parts[0]
        name = Path(first.path).stem if self._spec.name.endswith(".gguf") else self._spec.name
        return f"{name}-{first.sha256[:8]}" if self._store.find(name) else name

    def _placed(self, name: str, index: int, part: ModelPart) -> StoredFile:
        target = self._store.file_path(name, part.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._partial[index].replace(target)
        sync_directory(target.parent)
        return StoredFile(target, part.size, part.sha256)

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        for path in self._partial:
            path.unlink(missing_ok=True)


def chunk(spec: ModelSpec, index: int, offset: int, size: int) -> bytes:
    """A piece of the driver's file; CorruptFile if it has become shorter."""
    part = spec.parts[index]
    with Path(part.path).open("rb") as file:
        file.seek(offset)
        data = file.read(min(size, part.size - offset))
    if not data and part.size > offset:
        raise CorruptFile(f"{part.path} has changed while it was copied")
    return data
