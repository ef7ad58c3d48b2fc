"""Files of the Hub into the Hugging Face cache: resumed where they broke off, hashed as they arrive.

    path = download(hub, hub.file("user/repo", "model.gguf"), revision="main", report=bar)

What has arrived survives a dropped connection, a kill and a power cut. A file gets its name only when it is complete;
one with another hash than the Hub announced is set aside.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

from edgellm.errors import ChecksumMismatch, DiskFull, FileAccessError
from edgellm.files import CHUNK, locked, require_space, sync_directory, sync_file
from edgellm.models.hub.cache import HubCache
from edgellm.models.hub.client import Hub, RangeRefused
from edgellm.models.hub.files import RemoteFile
from edgellm.models.hub.retry import Transient
from edgellm.progress import Progress, Report, silent

_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def missing_bytes(hub: Hub, files: Sequence[RemoteFile]) -> int:
    """How many bytes of some files are not in the cache yet."""
    cache = HubCache(hub.cache)
    return sum(file.size - cache.here(file) for file in files)


def download_all(
    hub: Hub, files: Sequence[RemoteFile], *, name: str, revision: str, force: bool = False, report: Report = silent
) -> list[Path]:
    """The paths of all files of the model `name`, once there is room for them; raises as `download` does."""
    missing = sum(file.size for file in files) if force else missing_bytes(hub, files)
    require_space(hub.cache, missing, purpose=f"downloading {name}", setting="HF_HUB_CACHE")
    return [download(hub, file, revision=revision, force=force, report=report) for file in files]


def download(
    hub: Hub, file: RemoteFile, *, revision: str = "main", force: bool = False, report: Report = silent
) -> Path:
    """The path of a file in the cache, downloaded unless it is there, and checked; waits for another pull of it.

    Raises:
        ChecksumMismatch: what arrived is not what the Hub announced; it is set aside.
        NetworkError: it broke off for good; what has arrived is kept for the next time.
        DiskFull, FileAccessError: the cache cannot be written.
    """
    cache = HubCache(hub.cache)
    target = cache.snapshot(file)
    with _writing(hub.cache, file):
        if not force and target.is_file() and _is_right(target, file, report):
            return target  # without writing anything: the cache may be somebody else's
        with locked(cache.lock(file), lambda: report(Progress(f"waiting for another pull of {file.name}"))):
            blob = cache.blob(file)
            if force or not blob.is_file() or not _is_right(blob, file, report):
                if not force:
                    _set_aside(blob, cache.corrupt(file))
                _fetch(hub, file, cache, report)
            return cache.publish(file, revision)


def _fetch(hub: Hub, file: RemoteFile, cache: HubCache, report: Report) -> None:
    """Download what is missing, compare the hash, and give the blob its name."""
    partial = cache.partial(file)
    partial.parent.mkdir(parents=True, exist_ok=True)
    if partial.exists() and partial.stat().st_size > file.size:
        partial.unlink()
    digest = _digest(file)
    with partial.open("a+b") as out:
        out.seek(0)
        here, size = 0, partial.stat().st_size
        while chunk := out.read(min(CHUNK, size - here)):
            digest.update(chunk)
            here += len(chunk)
            report(Progress(f"checking what is here of {file.name}", here, file.size, "B"))
        require_space(partial.parent, file.size - here, purpose=f"downloading {file.name}", setting="HF_HUB_CACHE")
        try:
            digest = _receive(hub, file, out, here, digest, report)
        except ChecksumMismatch:
            _set_aside(partial, cache.corrupt(file))
            raise
        sync_file(out)
    if digest.hexdigest() != (file.sha256 or file.etag) and _is_hash(file):
        aside = _set_aside(partial, cache.corrupt(file))
        raise ChecksumMismatch(
            f"{file.name} did not arrive as {file.repo} has it; it is set aside as {aside}",
            why=f"its hash is {digest.hexdigest()}, expected {file.etag}",
            hint="the same again, which downloads it anew",
            path=str(aside),
            actual=digest.hexdigest(),
            expected=file.etag,
        )
    partial.replace(cache.blob(file))
    sync_directory(partial.parent)


def _receive(hub: Hub, file: RemoteFile, out: IO[bytes], here: int, digest: _Digest, report: Report) -> _Digest:
    """Append to `out` until the file is complete, whatever breaks in between; the digest of all of it."""
    rate = _Rate(here, file.size)
    pauses = iter(hub.patience.pauses)
    while here < file.size:
        try:
            for chunk in hub.stream(file, here):
                out.write(chunk)
                digest.update(chunk)
                here += len(chunk)
                pauses = iter(hub.patience.pauses)
                report(Progress(file.name, here, file.size, "B", rate(here)))
        except Transient as error:
            out.flush()
            hub.patience.wait(error, pauses, report)
        except RangeRefused:
            if not here:
                raise
            # Nothing can be appended to what is here: from the start, once.
            out.truncate(0)
            here, digest = 0, _digest(file)
    return digest


class _Rate:
    """The speed since this download began, and the time left, as text."""

    def __init__(self, start: int, size: int) -> None:
        self._start, self._size, self._began = start, size, time.monotonic()

    def __call__(self, here: int) -> str:
        seconds = time.monotonic() - self._began
        rate = (here - self._start) / max(seconds, 1e-6)
        if seconds < 1 or not rate:
            return ""
        left = int((self._size - here) / rate)
        return f"{rate / 1e6:.1f} MB/s  {left // 60}:{left % 60:02d}"


def _digest(file: RemoteFile) -> _Digest:
    """A digest of the kind that the etag is: sha256 for large files, git's sha1 for small ones."""
    if _is_hash(file) and file.sha256 is None:
        return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    return hashlib.sha256()


def _is_hash(file: RemoteFile) -> bool:
    """Whether the etag is a hash; a mirror may have tags of its own, and then only sizes can be compared."""
    return re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", file.etag) is not None


def _is_right(path: Path, file: RemoteFile, report: Report) -> bool:
    """Whether a file in the cache has the size and the hash that its name promises."""
    if path.stat().st_size != file.size:
        return False
    digest, done = _digest(file), 0
    with path.open("rb") as data:
        while chunk := data.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report(Progress(f"checking {file.name}", done, file.size, "B"))
    return digest.hexdigest() == file.etag or not _is_hash(file)


def _set_aside(path: Path, aside: Path) -> Path:
    """Take a corrupt file out of the way; one of each is kept."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        path.replace(aside)
    return aside


@contextlib.contextmanager
def _writing(cache: Path, file: RemoteFile) -> Iterator[None]:
    """Turn what the file system refuses into an error that names the cache."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"the disk is full while downloading {file.name}",
                hint=f"free some space, then the same again: what has arrived is kept; or set HF_HUB_CACHE ({cache})",
                path=str(cache),
            ) from error
        if error.errno in _UNWRITABLE:
            raise FileAccessError(
                f"the Hugging Face cache {cache} cannot be written",
                why=f"{error.filename or cache}: {error.strerror}",
                hint="set HF_HUB_CACHE to a directory that you can write to",
                path=str(cache),
            ) from error
        raise
