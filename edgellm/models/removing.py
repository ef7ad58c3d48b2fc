"""Take models off this machine, and what unfinished work left behind: only files that no other name uses.

    remove(store, store.get("smollm2"), hub_cache)
    for leftover in leftovers(store, settings.downloads, hub_cache): leftover.path, leftover.why

Files outside of edgellm's store and of the Hugging Face cache are the user's own: they are only forgotten.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgellm.files import locked, locked_if_free
from edgellm.models.registering import SOURCE as IMPORTED
from edgellm.models.store import InstalledModel, Part, Store
from edgellm.progress import Progress, Report, silent

# How huggingface_hub names the directory of a repository and those below it.
_REPOSITORY = "models--"
_INCOMPLETE = ".edgellm.incomplete"
_CORRUPT = ".corrupt"


@dataclass(frozen=True, slots=True)
class Removed:
    """A model that was removed; `freed` is in bytes, `kept` the files that stay because others use them."""

    name: str
    freed: int
    kept: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that no model needs; its maker holds one of `locks` while it is at work."""

    path: Path
    size: int
    why: str
    locks: tuple[Path, ...] = ()


def remove(store: Store, model: InstalledModel, hub_cache: Path, *, report: Report = silent) -> Removed:
    """Forget a model and delete its files, as far as they are ours and nobody else's.

    The manifest goes first: a crash in between leaves files without a name, which `prune` finds, never a name without
    its files.
    """
    waiting = Progress(f"waiting for another process with {model.name}")
    with locked(store.lock_path(model.name), lambda: report(waiting)):
        used = {part.path for other in store.all() if other.name != model.name for part in other.files}
        store.forget(model)
        freed, kept = 0, []
        for part in model.files:
            ours = model.source != IMPORTED and (
                part.path.is_relative_to(store.directory) or part.path.is_relative_to(hub_cache)
            )
            if not ours or part.path in used:
                kept.append(part.path)
            elif part.path.is_relative_to(store.directory):
                freed += _delete(part.path, store.directory)
            else:
                freed += _delete_from_hub_cache(part, hub_cache, used)
    return Removed(model.name, freed, tuple(kept))


def leftovers(store: Store, downloads: Path, hub_cache: Path) -> list[Leftover]:
    """What `prune` would remove: unfinished downloads, files set aside, files and names without each other."""
    found = [*_in_store(store), *_in_downloads(downloads), *_in_hub_cache(hub_cache)]
    return sorted(found, key=lambda leftover: str(leftover.path))


def prune(found: Sequence[Leftover], store: Store) -> list[Leftover]:
    """Delete leftovers, but for those that somebody is working on or has made use of by now; returns the deleted."""
    deleted = []
    for leftover in found:
        with ExitStack() as stack:
            free = [stack.enter_context(locked_if_free(lock)) for lock in leftover.locks]
            used = {part.path for model in store.list() for part in model.files}
            if all(free) and leftover.path not in used:
                _erase(leftover.path)
                deleted.append(leftover)
    return deleted


def _in_store(store: Store) -> Iterator[Leftover]:
    models = {model.name: model for model in store.all()}
    for model in models.values():
        if not model.path.is_file():
            yield Leftover(store.manifest(model.name), 0, "the model's file is gone", (store.lock_path(model.name),))
    known = {part.path for model in models.values() for part in model.files}
    for directory in sorted(path for path in store.directory.glob("*") if path.is_dir()):
        if directory.suffix == ".work":
            yield Leftover(
                directory, _size_below(directory), "an unfinished conversion", (directory.with_suffix(".lock"),)
            )
            continue
        lock = store.directory / f".{directory.name}.lock"
        for path in sorted(path for path in directory.rglob("*") if not path.is_dir()):
            if path not in known:
                yield Leftover(path, _size(path), "no model uses it", (lock,))
    for path in store.directory.glob("*.part"):
        yield Leftover(path, _size(path), "unfinished")


def _in_downloads(downloads: Path) -> Iterator[Leftover]:
    for path in downloads.glob("pip-*/"):
        yield Leftover(path, _size_below(path), "an unfinished download", tuple(downloads.glob("*.lock")))


def _in_hub_cache(hub_cache: Path) -> Iterator[Leftover]:
    for blob in hub_cache.glob(f"{_REPOSITORY}*/blobs/*"):
        for ending, why in ((_INCOMPLETE, "an unfinished download"), (_CORRUPT, "set aside: its hash was wrong")):
            if blob.name.endswith(ending):
                etag = blob.name.removesuffix(ending)
                lock = hub_cache / ".locks" / blob.parents[1].name / f"{etag}.lock"
                yield Leftover(blob, _size(blob), why, (lock,))


def _delete(path: Path, top: Path) -> int:
    """Delete a file and the directories that become empty; returns the bytes freed."""
    size = _size(path)
    path.unlink(missing_ok=True)
    _tidy(path.parent, top)
    return size


def _delete_from_hub_cache(part: Part, hub_cache: Path, used: set[Path]) -> int:
    """Delete a snapshot's link, and the blob behind it when no other snapshot links to it, and no model is it."""
    blob = part.path.resolve()
    repository = hub_cache / part.path.relative_to(hub_cache).parts[0]
    freed = 0 if part.path.is_symlink() else _size(part.path)
    part.path.unlink(missing_ok=True)
    _tidy(part.path.parent, repository)
    links = (path.resolve() for path in (repository / "snapshots").rglob("*") if path.is_symlink())
    if blob.is_relative_to(repository.resolve()) and blob.is_file() and blob not in {*links, *used}:
        freed = _delete(blob, repository)
    left = (path for name in ("blobs", "snapshots") for path in (repository / name).rglob("*"))
    if repository.name.startswith(_REPOSITORY) and all(path.is_dir() for path in left):
        shutil.rmtree(repository, ignore_errors=True)
    return freed


def _tidy(directory: Path, top: Path) -> None:
    while directory != top and directory.is_relative_to(top) and directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()
        directory = directory.parent


def _erase(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    path.unlink(missing_ok=True)
    if path.parent.is_dir() and not any(path.parent.iterdir()) and path.parent.name != "blobs":
        path.parent.rmdir()


def _size_below(directory: Path) -> int:
    return sum(_size(path) for path in directory.rglob("*") if path.is_file())


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
