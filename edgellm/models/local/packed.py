"""Packed files: the matrices of a large model as the kernels want them, kept between processes and shared by them.

    packed = PackedFiles.of_user(settings, stack.stamp)
    packed.of(path)              # which file the engine may fill or map when it loads this model; None: no file
    packed.nbytes_of(path)       # 1_730_000_000 once it is there

The engine writes and reads them (patches/native/packed/storage.h has the format). Here is which models get one, its
name, and the key in it, which says what the matrices depend on. A model has one file at most: a new one takes the name
of the old one. The engine adds the level of its kernels to the key, and compares every tensor.
"""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edgellm.errors import EdgellmError
from edgellm.formats.gguf_split import part_paths
from edgellm.settings import Settings

SUFFIX, UNFINISHED = ".packed", ".packed.part"
# Smaller models load in about a second.
LEAST_BYTES = 300_000_000
# What the key holds of the contents of a file; sizes and times of change tell the rest.
DIGESTED_BYTES = 1 << 20
# `struct header` in patches/native/packed/storage.cpp: magic, bytes of the key, entries, bytes of the matrices,
# checksum, boot.
_HEADER = struct.Struct("=8sIIQQ40s")
_MAGIC = b"EDGEPACK"
_LONGEST_KEY = 1 << 20
_FIRST_LINE = "packed weights of "


@dataclass(frozen=True, slots=True)
class PackedFile:
    """Where the packed matrices of a model belong, and the key that they must have."""

    path: Path
    key: str

    @property
    def environment(self) -> dict[str, str]:
        """The same for a program that loads one model."""
        return {"EDGELLM_PACKED_FILE": str(self.path), "EDGELLM_PACKED_KEY": self.key}

    @property
    def nbytes(self) -> int:
        """The bytes of the matrices; 0 if they are not there, or were packed from something else."""
        found = _read_front(self.path)
        return found.nbytes if found and found.key.startswith(self.key) else 0


@dataclass(frozen=True, slots=True)
class PackedFiles:
    """The packed files of an engine with this `stamp`; `least` is the size of the smallest model that gets one."""

    directory: Path
    stamp: str
    enabled: bool = True
    least: int = LEAST_BYTES

    @classmethod
    def of_user(cls, settings: Settings, stamp: str) -> PackedFiles:
        """Those in the user's cache, unless they are switched off."""
        return cls(settings.packed, stamp, settings.keep_packed)

    def of(self, model: Path) -> PackedFile | None:
        """The file for a model; None if packed files are off, the model is small, or it cannot be read."""
        if not self.enabled:
            return None
        try:
            parts = part_paths(model.absolute())
            if sum(part.stat().st_size for part in parts) < self.least:
                return None
            key = f"{_FIRST_LINE}{model.absolute()}\nengine {self.stamp}\n{content_of(model)}"
        except (OSError, EdgellmError):
            return None
        return PackedFile(self.path_of(model), key)

    def prepare(self, model: Path) -> PackedFile | None:
        """The same for a model that is about to be loaded: there is a directory for the file, if one can be made."""
        packed = self.of(model)
        if packed:
            with contextlib.suppress(OSError):
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return packed

    def path_of(self, model: Path) -> Path:
        """The name that the file of a model has, whether it is there or not."""
        name = hashlib.sha256(str(model.absolute()).encode(errors="surrogateescape")).hexdigest()
        return self.directory / f"{name[:20]}{SUFFIX}"

    def nbytes_of(self, model: Path) -> int:
        """The bytes of a model's packed matrices that the next process will map; 0 if it has to pack them."""
        packed = self.of(model)
        return packed.nbytes if packed else 0

    def all(self) -> Iterator[tuple[Path, str]]:
        """The packed files that are there, each with why no process will map it; empty if one may."""
        for path in sorted(self.directory.glob(f"*{SUFFIX}")):
            yield path, self._why_useless(path)

    def unfinished(self) -> list[Path]:
        """What a killed process left behind, or another one is writing; that one holds the lock of the file."""
        return sorted(self.directory.glob(f"*{UNFINISHED}"))

    def _why_useless(self, path: Path) -> str:
        front = _read_front(path)
        if front is None:
            return "a damaged packed file"
        model = Path(front.model)
        if not model.is_file():
            return f"packed weights of {model.name}, which is gone"
        current = replace(self, enabled=True, least=0).of(model)
        if current is None or current.path != path or not front.key.startswith(current.key):
            return f"packed weights of {model.name}, for another engine or from another file"
        return ""


@dataclass(frozen=True, slots=True)
class _Front:
    """The header of a packed file."""

    key: str
    nbytes: int

    @property
    def model(self) -> str:
        """The path of the model."""
        return self.key.partition("\n")[0].removeprefix(_FIRST_LINE)


def _read_front(path: Path) -> _Front | None:
    try:
        with path.open("rb") as file:
            magic, n_key, _, nbytes, _, _ = _HEADER.unpack(file.read(_HEADER.size))
            if magic != _MAGIC or n_key > _LONGEST_KEY or path.stat().st_size < nbytes:
                return None
            return _Front(file.read(n_key).decode(errors="surrogateescape"), nbytes)
    except (OSError, struct.error):
        return None


def content_of(model: Path) -> str:
    """What tells the contents of a model's files from others, a line for each file.

    Raises:
        OSError, CorruptFile: they cannot be read.
    """
    parts = ((part.stat(), part) for part in part_paths(model.absolute()))
    return "".join(f"{state.st_size} {state.st_mtime_ns} {_digest(part)}\n" for state, part in parts)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(DIGESTED_BYTES)).hexdigest()
