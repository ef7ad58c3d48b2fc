"""Brings a collection up to date with the files it was made of: reads what is new or changed, forgets what is gone.

    add_roots(collection, [Path("manuals")])
    outcome = update(collection, embedder, report=report)
    outcome.files     # what happened to each file

Words are indexed file by file, vectors after that: whoever stops in between can search already, and `update` goes on.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from edgellm.documents.chunks import SIZE, cut
from edgellm.documents.collection import Collection, FileState, IndexedFile
from edgellm.documents.elements import Note
from edgellm.documents.embedder import ChunkEmbedder, rough_count
from edgellm.documents.extraction import Extraction
from edgellm.documents.language import is_english
from edgellm.documents.readers.choose import MOST_BYTES, TOO_LARGE
from edgellm.errors import CorruptFile, EdgellmError, FileAccessError, UsageError
from edgellm.files import locked, sha256_of
from edgellm.machine.child import WaitHooks, WaitInterrupted
from edgellm.progress import Progress, Report, silent

# Chunks of one file that get vectors: a log of thousands would outweigh everything else. Words find the others.
MOST_VECTORS = 1000
MOST_CHUNKS = 50_000
# Files whose beginnings tell the language of a collection, their size in bytes, and characters of each.
SAMPLED = 12
SAMPLED_SIZE = 1 << 20
SAMPLED_TEXT = 2000
# Chunks that are embedded between two writes.
TOGETHER = 32
_SKIPPED = frozenset({"__pycache__", "node_modules", ".git", ".hg", ".svn", ".venv", ".tox"})
State = Literal["added", "changed", "unchanged", "removed", "unreadable", "skipped"]
ROOTS, EMBEDDER = "roots", "embedder"


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What happened to a file; `error` is why it could not be read, `notes` what of it could not."""

    name: str
    path: str
    state: State
    n_chunks: int = 0
    n_pages: int = 0
    notes: list[str] = field(default_factory=list)
    error: str = ""


@dataclass(slots=True)
class Outcome:
    """What an update did; `n_vectors` counts the chunks that got their vectors now."""

    files: list[FileOutcome] = field(default_factory=list)
    n_vectors: int = 0
    interrupted: bool = False

    def count(self, *states: State) -> int:
        """How many files ended so."""
        return sum(file.state in states for file in self.files)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file of a root; `refusal` is why it is not read. A `folder` cannot be listed, or is not there."""

    path: Path
    name: str
    refusal: str = ""
    folder: bool = False


def roots_of(collection: Collection) -> list[Path]:
    """The files and folders that a collection was made of."""
    return [Path(line) for line in (collection.setting(ROOTS) or "").splitlines()]


def add_roots(collection: Collection, paths: Sequence[Path]) -> None:
    """Remember files and folders; one inside another is part of that.

    Raises:
        FileAccessError: there is no such file or folder.
    """
    roots = roots_of(collection)
    for path in paths:
        place = path.expanduser().absolute()
        if not place.exists():
            raise FileAccessError(f"{path} does not exist")
        if not any(place == root or root in place.parents for root in roots):
            roots = [root for root in roots if place not in root.parents] + [place]
    collection.set(ROOTS, "\n".join(map(str, roots)))


def remove_roots(collection: Collection, paths: Sequence[Path]) -> None:
    """Forget files and folders as roots; what was read of them goes with the next update."""
    kept = [root for root in roots_of(collection) if root not in paths]
    collection.set(ROOTS, "\n".join(map(str, kept)))


def update(
    collection: Collection,
    embedder: ChunkEmbedder | None,
    *,
    only: Sequence[Path] | None = None,
    size: int = SIZE,
    report: Report = silent,
    on_file: Callable[[FileOutcome], None] = lambda _: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Read what is new or changed in the roots, forget what is gone, and make the vectors that are missing.

    With `only` these files are read, and nothing is forgotten. One process at a time writes to a collection; another
    one waits here.
    """
    outcome = Outcome()

    def note(file: FileOutcome) -> None:
        outcome.files.append(file)
        on_file(file)

    def wait() -> None:
        report(Progress("waiting for another process that reads into it"))
        if interrupted():
            raise WaitInterrupted

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(collection.path.with_name(f"{collection.path.name}.writing"), wait))
        except WaitInterrupted:
            outcome.interrupted = True
            return outcome
        _choose_embedder(collection, embedder)
        found = list(_found(roots_of(collection) if only is None else only))
        known = {file.path: file for file in collection.files()}
        try:
            with Extraction(WaitHooks(interrupted)) as extraction:
                for number, each in enumerate(found):
                    report(Progress("reading", number, len(found), detail=each.name))
                    if each.folder:
                        each = _keep_below(each, known)
                    note(_update_file(collection, extraction, each, known.pop(_key(each.path), None), embedder, size))
        except WaitInterrupted:  # what has been read stays
            outcome.interrupted = True
            return outcome
        if only is None:
            for gone in known.values():
                note(FileOutcome(gone.name, gone.path, "removed"))
            collection.remove(list(known))
        outcome.n_vectors = _embed(collection, embedder, report, interrupted)
        outcome.interrupted = interrupted()
    return outcome


def _keep_below(folder: _Found, known: dict[str, IndexedFile]) -> _Found:
    """Keep the files of a folder that cannot be listed: a disk may be plugged in again tomorrow."""
    below = [path for path in known if path.startswith(_key(folder.path) + os.sep)]
    for path in below:
        del known[path]
    return replace(folder, refusal=f"{folder.refusal}; what was read of it stays") if below else folder


def _choose_embedder(collection: Collection, embedder: ChunkEmbedder | None) -> None:
    if embedder and collection.setting(EMBEDDER) != embedder.name:
        collection.renew_vectors(embedder.understands, MOST_VECTORS)
        collection.set(EMBEDDER, embedder.name)


def share_not_english(collection: Collection) -> float:
    """The part of a collection's files that are not in English, judged from the beginnings of some, 0 to 1."""
    sizes = {each.path: _size(each.path) for each in _found(roots_of(collection)) if not each.refusal}
    small = [path for path, size in sizes.items() if size <= SAMPLED_SIZE] or sorted(sizes, key=sizes.__getitem__)[:1]
    with Extraction() as extraction:
        texts = [_beginning(extraction, path) for path in small[:: -(-len(small) // SAMPLED) or 1]]
    said = [text for text in texts if text]
    return sum(not is_english(text) for text in said) / max(1, len(said))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _beginning(extraction: Extraction, path: Path) -> str:
    """The beginning of a document; empty if it cannot be read. All of it is read: to stop its reader costs more."""
    text = ""
    try:
        for part in extraction.read(path):
            if not isinstance(part, Note) and len(text) < SAMPLED_TEXT:
                text += f"{part.text}\n"
    except EdgellmError:
        pass  # said when it is indexed
    return text


def _update_file(
    collection: Collection,
    extraction: Extraction,
    found: _Found,
    known: IndexedFile | None,
    embedder: ChunkEmbedder | None,
    size: int,
) -> FileOutcome:
    key = _key(found.path)
    if found.refusal:
        if known:
            collection.remove([key])
        return FileOutcome(found.name, key, "skipped", error=found.refusal)
    try:
        status = found.path.stat()
        if known and (known.size, known.changed) == (status.st_size, status.st_mtime_ns):
            return _unchanged(known)
        if status.st_size > MOST_BYTES:  # before its hash, which may take hours
            return _unreadable(
                collection, FileState(key, found.name, status.st_size, status.st_mtime_ns, ""), TOO_LARGE
            )
        sha256 = sha256_of(found.path)
    except OSError as error:
        if known:
            collection.remove([key])
        return FileOutcome(found.name, key, "unreadable", error=error.strerror or str(error))
    if known and known.sha256 == sha256:
        collection.touch(key, status.st_mtime_ns)
        return _unchanged(known)
    state = FileState(key, found.name, status.st_size, status.st_mtime_ns, sha256)
    try:
        return _read(collection, extraction, state, found.path, embedder, size, is_new=known is None)
    except CorruptFile as error:
        return _unreadable(collection, state, f"{error.what}: {error.why}" if error.why else error.what)
    except UsageError as error:  # a package is missing: not remembered, so that the next `sync` tries again
        return FileOutcome(found.name, key, "unreadable", error=f"{error.why}; {error.hint}")


def _unreadable(collection: Collection, state: FileState, reason: str) -> FileOutcome:
    reason = shown(" ".join(reason.split()))
    collection.put_unreadable(state, reason)
    return FileOutcome(state.name, state.path, "unreadable", error=reason)


def _unchanged(known: IndexedFile) -> FileOutcome:
    state: State = "unreadable" if known.error else "unchanged"
    return FileOutcome(known.name, known.path, state, known.n_chunks, known.n_pages, known.notes, known.error)


def _read(
    collection: Collection,
    extraction: Extraction,
    state: FileState,
    path: Path,
    embedder: ChunkEmbedder | None,
    size: int,
    *,
    is_new: bool,
) -> FileOutcome:
    count = embedder.count if embedder else rough_count
    with collection.replacing(state) as writer:
        for chunk in cut(extraction.read(path), count, size=size):
            if isinstance(chunk, Note):
                writer.notes.append(chunk.text)
                continue
            wants = embedder is not None and writer.n_chunks < MOST_VECTORS and embedder.understands(chunk.text)
            writer.add(chunk, wants_vector=wants)
            if writer.n_chunks == MOST_CHUNKS:
                writer.notes.append(f"only its first {MOST_CHUNKS:,} chunks are kept")
                break
        if embedder and writer.n_chunks > MOST_VECTORS:
            of = f"the first {MOST_VECTORS:,} of {writer.n_chunks:,} chunks"
            writer.notes.append(f"found by its words alone after {of}")
        if not writer.n_chunks:
            raise CorruptFile("it has no text", why="; ".join(writer.notes[:3]))
    done: State = "added" if is_new else "changed"
    return FileOutcome(state.name, state.path, done, writer.n_chunks, writer.n_pages, writer.notes)


def _embed(
    collection: Collection, embedder: ChunkEmbedder | None, report: Report, interrupted: Callable[[], bool]
) -> int:
    total, done = collection.n_without_vector, 0
    while embedder and not interrupted() and (chunks := collection.without_vector(TOGETHER)):
        report(Progress("computing vectors", done, total, detail="searchable by words already"))
        collection.put_vectors(embedder.embed_chunks(chunks))
        done += len(chunks)
    return done


def _found(roots: Sequence[Path]) -> Iterator[_Found]:
    """The files of the roots in order of their names; links in them are not followed."""
    for root in roots:
        if not root.is_dir():
            yield replace(_checked(root, root.name), folder=not root.exists())
            continue
        closed: list[OSError] = []
        for directory, folders, files in os.walk(root, onerror=closed.append):
            links = [each for each in folders if _is_link(Path(directory, each))]
            folders[:] = sorted(each for each in folders if each not in _SKIPPED)
            for name in sorted([*files, *links]):
                path = Path(directory, name)
                yield _checked(path, str(path.relative_to(root)))
        for error in closed:
            path = Path(error.filename)
            why = f"the folder cannot be read: {error.strerror}"
            yield _Found(path, shown(str(path.relative_to(root))), why, folder=True)


def _is_link(path: Path) -> bool:
    with contextlib.suppress(OSError):  # such as a path that is too long
        return path.is_symlink()
    return False


def _checked(path: Path, name: str) -> _Found:
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        return _Found(path, shown(name), error.strerror or str(error))
    if stat.S_ISLNK(mode):
        return _Found(path, shown(name), "it is a link")
    return _Found(path, shown(name), "" if stat.S_ISREG(mode) else "it is not a regular file")


def _key(path: Path) -> str:
    """A path as text that a database takes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def shown(name: str) -> str:
    """A file's name on one line: control characters and bytes that are no text are escaped."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
