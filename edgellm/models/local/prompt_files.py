"""Prompts that were read, as files: the tokens and the engine's state after them, kept between processes.

    files = PromptFiles(settings.prompts, limit=4_000_000_000)
    files.write(key, tokens, state, seconds_per_token=0.008)
    kept = files.longest(key, prompt)       # the file that begins most like a prompt, by its header alone
    files.read(kept)                        # the state, if not a bit of it has changed; else None

The key says what a state depends on: the model's files, the engine, the cache's types. The engine reads a state without
a doubt: it aborts the process at one that is cut off, and computes on with damaged numbers. So a file has a header of
ours, and nothing of it reaches the engine before its length, its key and its checksums are right. A file is whole or
not there: it is written under another name, synced, and renamed.

    header | key | tokens, 4 bytes each | state
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import shutil
import struct
import threading
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgellm.engine.base import CONTEXT_PADDING, common_length
from edgellm.errors import EdgellmError
from edgellm.files import locked, locked_if_free, sync_directory, sync_file
from edgellm.models.fit.memory import RunPlan
from edgellm.models.fit.outline import Outline
from edgellm.models.local.packed import content_of

SUFFIX, UNFINISHED = ".prompt", ".prompt.part"
# A shorter common beginning is not looked for: its tokens are computed at once.
LEAST_TOKENS = 32
# By default a tenth of the free disk, but never more than this; and so much of the disk stays free.
MOST_BYTES, DISK_SHARE, LEAST_FREE = 4_000_000_000, 10, 1_000_000_000
_MAGIC, _VERSION = b"EDGEPRMT", 1
# Magic, version, bytes of the key, tokens, bytes of the state, seconds a token took, checksums of the state and of all
# that stands before it.
_HEADER = struct.Struct("<8sIIIQdII")
_LONGEST_KEY, _MOST_TOKENS = 1 << 16, 1 << 24
_FIRST_LINE = "prompt of "
_READ_AT_ONCE = 1 << 24


@dataclass(frozen=True, slots=True)
class KeptPrompt:
    """The header of a file: what was read, how long it took, and where the state begins."""

    path: Path
    key: str
    tokens: Sequence[int] = field(repr=False)
    seconds_per_token: float
    n_state: int
    checksum: int
    offset: int

    @property
    def model(self) -> Path:
        """The file of its model."""
        return Path(self.key.partition("\n")[0].removeprefix(_FIRST_LINE))


def model_key(model: Path, engine: str) -> str:
    """What the states of a model depend on, whatever its cache is like: its files, and the engine's name.

    Raises:
        OSError, CorruptFile: the model cannot be read.
    """
    return f"{_FIRST_LINE}{model.absolute()}\nengine {engine}\n{content_of(model)}"


def cache_key(outline: Outline, plan: RunPlan, n_seq: int, kernels: str) -> str:
    """What they depend on beside that: the kernels, the cache, how many sequences it has, and the rope factors."""
    n_ctx = -(-plan.n_ctx // CONTEXT_PADDING) * CONTEXT_PADDING
    rope = "long" if outline.n_ctx_original and n_ctx > outline.n_ctx_original else "short"
    attention = {None: "auto", True: "on", False: "off"}[plan.flash_attention]
    cache = f"{n_seq} sequences, cache {plan.kv_type.upper()}, flash attention {attention}, rope factors {rope}"
    return f"kernels {kernels}, {cache}\n"


@dataclass(frozen=True, slots=True)
class PromptFiles:
    """The files of a directory, `limit` bytes at most; those that were used longest ago go first. 0: there are none."""

    directory: Path
    limit: int

    @classmethod
    def of_size(cls, directory: Path, limit: int | None) -> PromptFiles:
        """Those of a directory; without a limit, a tenth of the free disk and at most 4 GB."""
        files = cls(directory, 0)
        return cls(
            directory, min(MOST_BYTES, (_free(directory) + files.nbytes) // DISK_SHARE) if limit is None else limit
        )

    def longest(
        self, key: str, tokens: Sequence[int], *, most: int = _MOST_TOKENS, whole: bool = False
    ) -> tuple[KeptPrompt, int] | None:
        """The file with the longest common beginning, and its length; only headers are read.

        Files of more than `most` tokens do not count; with `whole`, nor do those that have other tokens after it.
        """
        best: tuple[KeptPrompt, int] | None = None
        asked = array("i", tokens)
        for path in self._place(key).glob(f"{_beginning(asked)}-*{SUFFIX}") if len(asked) >= LEAST_TOKENS else ():
            kept = read_front(path)
            if kept is None or kept.key != key or len(kept.tokens) > most:
                continue
            common = common_length(kept.tokens, asked)
            if whole and common < len(kept.tokens):
                continue
            if best is None or (common, -kept.n_state) > (best[1], -best[0].n_state):
                best = kept, common
        return best

    def latest(self, key: str, count: int, *, most: int) -> list[KeptPrompt]:
        """The files of up to `most` tokens that were used last, the latest first."""
        place = self._place(key)
        states = sorted(
            ((state.st_mtime_ns, path) for path, state in self._stats() if path.parent == place), reverse=True
        )
        found = (read_front(path) for _, path in states)
        fitting = (kept for kept in found if kept and kept.key == key and len(kept.tokens) <= most)
        return [*itertools.islice(fitting, count)]

    def read(self, kept: KeptPrompt) -> Any:
        """The state in a file as writable memory; None if a bit of it is another than was written, or it is gone."""
        try:
            with kept.path.open("rb") as file:
                if _front_of(file, kept.path) != kept:
                    return None
                import numpy as np

                state = np.empty(kept.n_state, np.uint8)
                if file.readinto(state.data) != kept.n_state or _checksum(state) != kept.checksum:
                    return None
            os.utime(kept.path)
        except (OSError, ValueError, MemoryError):
            return None
        return state

    def write(self, key: str, tokens: Sequence[int], state: Any, seconds_per_token: float) -> Path | None:
        """Keep a state; what finds no room makes room, or is not kept: None. A shorter file of the same prompt goes."""
        numbers = array("i", tokens)
        front = _front(key, numbers, memoryview(state).nbytes, seconds_per_token, _checksum(state))
        size = len(front) + memoryview(state).nbytes
        if size > self.limit or len(numbers) < LEAST_TOKENS:
            return None
        place = self._place(key)
        path = place / f"{_beginning(numbers)}-{_digest(numbers.tobytes())}{SUFFIX}"
        partial = place / f"{path.stem}.{os.getpid()}-{threading.get_ident()}{UNFINISHED}"
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.mkdir(mode=0o700, exist_ok=True)
            if _free(self.directory) < size + LEAST_FREE:
                return None
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # so that nobody takes it for a leftover
                file.write(front)
                file.write(state)
                sync_file(file)
                with locked(self.directory / "lock"):
                    self._make_room(size, path)
                    partial.replace(path)
            sync_directory(place)
        except OSError:  # a disk that is full or read-only is no reason to end an answer
            return None
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        self._forget_shorter(key, numbers, path)
        return path

    def _make_room(self, size: int, instead_of: Path) -> None:
        """Delete what a killed process left behind, and the files that were used longest ago."""
        for left in self.unfinished():
            with locked_if_free(left) as free:
                if free:
                    left.unlink(missing_ok=True)
        states = [(state.st_mtime_ns, state.st_size, path) for path, state in self._stats() if path != instead_of]
        total = sum(nbytes for _, nbytes, _ in states)
        for _, nbytes, path in sorted(states):
            if total + size <= self.limit:
                return
            path.unlink(missing_ok=True)
            total -= nbytes

    def _forget_shorter(self, key: str, tokens: array[int], longer: Path) -> None:
        """Delete files of the same prompt that are shorter, but not by so much that they are quicker to read."""
        for path in self._place(key).glob(f"{_beginning(tokens)}-*{SUFFIX}"):
            kept = read_front(path)
            if path == longer or kept is None or 2 * len(kept.tokens) < len(tokens):
                continue
            if common_length(kept.tokens, tokens) == len(kept.tokens):
                path.unlink(missing_ok=True)

    def all(self) -> Iterator[tuple[Path, KeptPrompt | None]]:
        """Every file with its header; None where that is damaged."""
        for path in sorted(self.directory.glob(f"*/*{SUFFIX}")):
            yield path, read_front(path)

    def unfinished(self) -> list[Path]:
        """What a killed process left behind, or another one is writing; that one holds the lock of the file."""
        return sorted(self.directory.rglob(f"*{UNFINISHED}"))

    @property
    def nbytes(self) -> int:
        """The bytes of all files."""
        return sum(state.st_size for _, state in self._stats())

    def nbytes_of(self, model: Path) -> int:
        """The bytes of a model's files."""
        own = {path for path, kept in self.all() if kept and kept.model == model.absolute()}
        return sum(state.st_size for path, state in self._stats() if path in own)

    def _stats(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.directory.glob(f"*/*{SUFFIX}"):
            with contextlib.suppress(OSError):
                yield path, path.stat()

    def _place(self, key: str) -> Path:
        return self.directory / _digest(key.encode(errors="surrogateescape"))


def why_useless(kept: KeptPrompt | None, engine: str) -> str:
    """Why no process will read a file; empty if one may. `engine` is the name of the engine in use."""
    if kept is None:
        return "a damaged prompt"
    name = kept.model.name
    if not kept.model.is_file():
        return f"a prompt of {name}, which is gone"
    try:
        current = model_key(kept.model, engine)
    except (OSError, EdgellmError):
        return f"a prompt of {name}, which cannot be read"
    return "" if kept.key.startswith(current) else f"a prompt of {name}, for another engine or from another file"


def read_front(path: Path) -> KeptPrompt | None:
    """The header of a file; None if it is none, damaged, or the file has not the length that it says."""
    try:
        with path.open("rb") as file:
            return _front_of(file, path)
    except (OSError, ValueError):
        return None


def _front_of(file: Any, path: Path) -> KeptPrompt | None:
    data = file.read(_HEADER.size)
    if len(data) < _HEADER.size:
        return None
    magic, version, n_key, n_tokens, n_state, seconds, checksum, own = _HEADER.unpack(data)
    length = _HEADER.size + n_key + 4 * n_tokens + n_state
    if (magic, version) != (_MAGIC, _VERSION) or n_key > _LONGEST_KEY or n_tokens > _MOST_TOKENS:
        return None
    if os.fstat(file.fileno()).st_size != length:
        return None
    key, tokens = file.read(n_key), array("i", file.read(4 * n_tokens))
    if zlib.crc32(tokens.tobytes(), zlib.crc32(key, zlib.crc32(data[:-4]))) != own:
        return None
    text = key.decode(errors="surrogateescape")
    return KeptPrompt(path, text, tokens, seconds, n_state, checksum, length - n_state)


def _front(key: str, tokens: array[int], n_state: int, seconds: float, checksum: int) -> bytes:
    data, numbers = key.encode(errors="surrogateescape"), tokens.tobytes()
    header = _HEADER.pack(_MAGIC, _VERSION, len(data), len(tokens), n_state, seconds, checksum, 0)[:-4]
    own = zlib.crc32(numbers, zlib.crc32(data, zlib.crc32(header)))
    return header + struct.pack("<I", own) + data + numbers


def _checksum(state: Any) -> int:
    view, checksum = memoryview(state).cast("B"), 0
    for start in range(0, len(view), _READ_AT_ONCE):
        checksum = zlib.crc32(view[start : start + _READ_AT_ONCE], checksum)
    return checksum


def _beginning(tokens: array[int]) -> str:
    """The name of the first tokens of a prompt, without which nothing of a file is of use."""
    return _digest(tokens[:LEAST_TOKENS].tobytes())[:12]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:20]


def _free(directory: Path) -> int:
    """The bytes that are free on the disk of a directory, which need not be there yet."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return shutil.disk_usage(directory).free
