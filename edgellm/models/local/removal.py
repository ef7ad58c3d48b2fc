"""Removes models, and what unfinished work left behind; only files that no other name uses.

    remove(store, store.get("smollm2"), hub_cache, tunings=settings.tunings)
    for leftover in leftovers(store, settings, hub_cache): leftover.path, leftover.why

Files outside of edgellm's store and of the Hugging Face cache are the user's own: they are only forgotten.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edgellm.files import locked, locked_if_free
from edgellm.models.local import tune_records
from edgellm.models.local.packed import PackedFiles
from edgellm.models.local.prompt_files import PromptFiles, why_useless
from edgellm.models.local.registration import SOURCE as IMPORTED
from edgellm.models.local.store import InstalledModel, Store, StoredFile
from edgellm.progress import Progress, Report, silent
from edgellm.settings import Settings

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


def remove(
    store: Store,
    model: InstalledModel,
    hub_cache: Path,
    *,
    tunings: Path | None = None,
    packed: PackedFiles | None = None,
    prompts: PromptFiles | None = None,
    report: Report = silent,
) -> Removed:
    """Forget a model and delete its files, also the packed one and its prompts, except those that are not ours or that
    others use.

    The manifest goes first: a crash in between leaves files without a name, which `prune` finds, never a name without
    its files.
    """
    waiting = Progress(f"waiting for another process with {model.name}")
    with locked(store.lock_path(model.name), lambda: report(waiting)):
        used = {part.path for other in store.all() if other.name != model.name for part in other.files}
        store.forget(model)
        if tunings and model.path not in used:
            tune_records.forget(tunings, model.path)
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
    if packed and not model.path.exists():
        freed += _delete(packed.path_of(model.path), packed.directory)
    if prompts and not model.path.exists():
        kept_prompts = [path for path, prompt in prompts.all() if prompt and prompt.model == model.path.absolute()]
        freed += sum(_delete(path, prompts.directory) for path in kept_prompts)
    return Removed(model.name, freed, tuple(kept))


def leftovers(
    store: Store, settings: Settings, hub_cache: Path, packed: PackedFiles | None = None, *, engine: str = ""
) -> list[Leftover]:
    """What `prune` would remove: unfinished work, files set aside, files and names without each other, of adapters too.

    `engine` is the name of the engine in use, without which no prompt that is kept counts as one too many.
    """
    found = [
        *_in_store(store),
        *_in_store(Store(settings.adapters)),
        *_in_downloads(settings.downloads),
        *_in_hub_cache(hub_cache),
    ]
    found += [*_in_evaluations(settings.evaluations), *_in_tunings(settings.tunings)]
    found += _in_packed(packed) if packed else ()
    found += _in_prompts(PromptFiles(settings.prompts, 0), engine) if engine else ()
    return sorted(found, key=lambda leftover: str(leftover.path))


def prune(found: Sequence[Leftover], *stores: Store) -> list[Leftover]:
    """Delete leftovers, except those that are locked or in use by now, in any of the stores; returns the deleted."""
    deleted = []
    for leftover in found:
        with ExitStack() as stack:
            free = [stack.enter_context(locked_if_free(lock)) for lock in leftover.locks]
            used = {part.path for store in stores for model in store.list() for part in model.files}
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


def _in_evaluations(evaluations: Path) -> Iterator[Leftover]:
    """Work that was interrupted; the batch that writes answers holds the lock of their file."""
    for work in evaluations.glob("work/*/"):
        yield Leftover(work, _size_below(work), "an unfinished evaluation", tuple(work.glob("*.part")))


def _in_tunings(tunings: Path) -> Iterator[Leftover]:
    for path, record in tune_records.all_records(tunings):
        if record is None:
            yield Leftover(path, _size(path), "what tune found, but it cannot be read")
        elif not record.model.is_file():
            yield Leftover(path, _size(path), "what tune found for a model that is gone")
    for path in tunings.glob("*.part"):
        yield Leftover(path, _size(path), "unfinished")


def _in_packed(packed: PackedFiles) -> Iterator[Leftover]:
    for path, why in packed.all():
        if why:
            yield Leftover(path, _size(path), why)
    for path in packed.unfinished():
        yield Leftover(path, _size(path), "unfinished packed weights", (path,))


def _in_prompts(prompts: PromptFiles, engine: str) -> Iterator[Leftover]:
    for path, kept in prompts.all():
        if why := why_useless(kept, engine):
            yield Leftover(path, _size(path), why)
    for path in prompts.unfinished():
        yield Leftover(path, _size(path), "an unfinished prompt", (path,))


def kept_prompts(prompts: PromptFiles, engine: str) -> list[Leftover]:
    """The prompts that need not be read again."""
    found = ((path, kept) for path, kept in prompts.all() if kept and not why_useless(kept, engine))
    return [
        Leftover(path, _size(path), f"a prompt of {kept.model.name}, {len(kept.tokens):,} tokens")
        for path, kept in found
    ]


def kept_packed(packed: PackedFiles) -> list[Leftover]:
    """The packed files that make the next loads quick."""
    return [Leftover(path, _size(path), "packed weights") for path, why in packed.all() if not why]


def _delete(path: Path, top: Path) -> int:
    """Delete a file and the directories that become empty; returns the bytes freed."""
    size = _size(path)
    path.unlink(missing_ok=True)
    _tidy(path.parent, top)
    return size


def _delete_from_hub_cache(part: StoredFile, hub_cache: Path, used: set[Path]) -> int:
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
