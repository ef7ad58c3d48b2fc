"""Keeps files complete: hashing, atomic writes, and locks between processes.

with locked(settings.cache / "build.lock"):
    write_atomically(path, b"...")
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from edgellm.errors import ChecksumMismatch, DiskFull

CHUNK = 1 << 20
# How often to look whether a lock is free, in seconds.
LOOK_SECONDS = 0.05


def sha256_of(path: Path, report: Callable[[int], None] = lambda _: None) -> str:
    """Return the hex sha256 of a file; `report` receives the bytes read so far."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report(done)
    return digest.hexdigest()


def verify_sha256(path: Path, expected: str, *, hint: str, report: Callable[[int], None] = lambda _: None) -> None:
    """Raise `ChecksumMismatch` unless the file has the `expected` sha256."""
    actual = sha256_of(path, report)
    if actual != expected:
        raise ChecksumMismatch(
            f"{path.name} is not the expected file",
            why=f"its sha256 is {actual}, expected {expected}",
            hint=hint,
            path=str(path),
            actual=actual,
            expected=expected,
        )


def write_atomically(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Replace `path` with `data`, so that a crash leaves either the old file or the new one.

    `mode` is the permissions of the file, by default those that the umask allows.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(data)
            sync_file(file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_file(file: IO[bytes]) -> None:
    """Flush a file to the disk."""
    file.flush()
    if sys.platform == "darwin":
        # There fsync leaves the data in the cache of the drive; some file systems have nothing better.
        with contextlib.suppress(OSError):
            fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)
            return
    os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_space(path: Path, needed: int, *, purpose: str, setting: str = "EDGELLM_HOME") -> None:
    """Raise `DiskFull` unless `needed` bytes are free for `path`; the environment variable `setting` relocates it."""
    place = path
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise DiskFull(
            f"{purpose} needs {needed / 1e9:.2f} GB, but only {free / 1e9:.2f} GB is free on the disk of {place}",
            hint=f"free some space, or set {setting} to a directory on a larger disk",
            path=str(place),
            needed=needed,
            free=free,
        )


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Hold an exclusive lock between processes; yield its descriptor.

    A child that inherits the descriptor holds the lock until it ends, even when this process is killed. A build
    that outlives its parent thus keeps another build from starting. `waiting` is called again and again while
    another process holds the lock, so that a display which hides what is over within a second shows it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while not _try_lock(descriptor):
            waiting()
            time.sleep(LOOK_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock unless another process does; yield whether it is held. The lock file is not created."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield True
        return
    try:
        yield _try_lock(descriptor)
    finally:
        os.close(descriptor)


def identity(model: Path) -> tuple[str, int, int]:
    """What distinguishes a model file from another without reading it: place, size, and time in nanoseconds."""
    state = model.stat()
    return str(model.resolve()), state.st_size, state.st_mtime_ns
