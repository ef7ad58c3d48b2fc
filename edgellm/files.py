"""Files that are either whole or not there: hashing, atomic writing, and a lock between processes.

with locked(settings.cache / "build.lock"):
    write_atomically(path, b"...")
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from edgellm.errors import ChecksumMismatch, DiskFull

CHUNK = 1 << 20


def sha256_of(path: Path, report: Callable[[int], None] = lambda _: None) -> str:
    """Hex sha256 of a file; `report` receives the bytes read so far."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report(done)
    return digest.hexdigest()


def verify_sha256(path: Path, expected: str, *, hint: str, report: Callable[[int], None] = lambda _: None) -> None:
    """Raise `ChecksumMismatch` unless the file has that sha256."""
    actual = sha256_of(path, report)
    if actual != expected:
        raise ChecksumMismatch(
            f"{path.name} is not the file that was expected",
            why=f"its sha256 is {actual}, expected {expected}",
            hint=hint,
            path=str(path),
            actual=actual,
            expected=expected,
        )


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data` so that a crash leaves either the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(data)
            sync_file(file)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_file(file: IO[bytes]) -> None:
    """Flush a file to the disk itself."""
    file.flush()
    os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make renames inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_space(path: Path, needed: int, *, purpose: str, setting: str = "EDGELLM_HOME") -> None:
    """Raise `DiskFull` unless `needed` bytes are free where `path` is or will be; `setting` moves that place."""
    place = path
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise DiskFull(
            f"{purpose} needs {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB is free on the disk of {place}",
            hint=f"free some space, or set {setting} to a directory on a larger disk",
            path=str(place),
            needed=needed,
            free=free,
        )


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Hold an exclusive lock between processes; yields its descriptor.

    A child that inherits the descriptor keeps the lock until it ends, even when this process is killed:
    that is how a build that outlives its parent keeps the next one from running beside it.
    `waiting` is called once if another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock unless another process does; yields whether it is held. No file is made where none was."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield True
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except BlockingIOError:
        free = False
    try:
        yield free
    finally:
        os.close(descriptor)
