"""Writes a GGUF file as a stream: declare all tensors first, then write them slab by slab.

The file appears under its name only when it is complete; an error or Ctrl-C leaves nothing behind. Memory
never holds more than one slab of one tensor.

    with GGUFWriter(path) as out:
        out.copy_metadata(source.metadata)
        out.add("general.file_type", 37)
        out.declare("token_embd.weight", (2560, 128256), named_type("F16"))
        out.write("token_embd.weight", slabs)
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from edgellm.errors import DiskFull, EdgellmError
from edgellm.files import sync_directory, sync_file
from edgellm.formats.gguf_header import DEFAULT_ALIGNMENT, MAGIC, MAX_DIMS, MAX_TENSOR_NAME_BYTES
from edgellm.formats.gguf_metadata import Metadata, Scalar, ValueType, encode_string, encode_value
from edgellm.formats.quant_types import QuantType, tensor_nbytes

VERSION = 3
_ALIGNMENT_KEY = "general.alignment"


class _Declared(NamedTuple):
    shape: tuple[int, ...]
    type: QuantType
    nbytes: int


class GGUFWriter:
    """A GGUF file being written. Calls out of order or with wrong sizes are bugs and raise ValueError."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        self._values: dict[str, tuple[ValueType, bytes]] = {}
        self._tensors: dict[str, _Declared] = {}
        self._types: dict[int, QuantType] = {}
        self._written = 0
        self._file: BinaryIO | None = None

    def add(self, key: str, value: Scalar | Iterable[Scalar], value_type: ValueType | None = None) -> None:
        """Set a metadata value, replacing any previous one; types are inferred as in `encode_value`."""
        self._still_declaring()
        if key == _ALIGNMENT_KEY:
            raise ValueError(f"tensors are always aligned to {DEFAULT_ALIGNMENT} bytes here")
        self._values[key] = encode_value(value, value_type)

    def copy_metadata(self, metadata: Metadata) -> None:
        """Copy the metadata of another file byte for byte; `add` and `remove` then edit the copy."""
        self._still_declaring()
        for key, field in metadata.fields.items():
            if key != _ALIGNMENT_KEY:
                self._values[key] = (field.type, metadata.raw(key))

    def remove(self, key: str) -> None:
        """Drop a metadata key, if present."""
        self._still_declaring()
        self._values.pop(key, None)

    def declare(self, name: str, shape: Sequence[int], quant_type: QuantType) -> None:
        """Declare the next tensor; `shape` is in ne order (row length first)."""
        self._still_declaring()
        named = name not in self._tensors and 0 < len(name.encode()) <= MAX_TENSOR_NAME_BYTES
        if not named or len(shape) > MAX_DIMS or 0 in shape:
            raise ValueError(f"tensor {name!r} {tuple(shape)} is declared twice or cannot be in a GGUF file")
        if self._types.setdefault(quant_type.id, quant_type) is not quant_type:
            raise ValueError(f"tensor {name!r} is {quant_type}, but another one has its id with another size")
        self._tensors[name] = _Declared(tuple(shape), quant_type, tensor_nbytes(quant_type, shape))

    @property
    def nbytes(self) -> int:
        """The size in bytes of the finished file, given what is declared so far."""
        return len(self._header()) + sum(_padded(tensor.nbytes) for tensor in self._tensors.values())

    def write(self, name: str, data: bytes | npt.NDArray[np.generic] | Iterable[npt.NDArray[np.generic]]) -> None:
        """Write a tensor's bytes, whole or as slabs in row order; tensors must follow the declared order.

        Raises DiskFull when the file system has no room, before the first byte if that is known in advance.
        """
        expected_name = next(islice(self._tensors, self._written, None), None)
        if name != expected_name:
            raise ValueError(f"tensor {name!r} is written where {expected_name!r} is due")
        nbytes = self._tensors[name].nbytes
        slabs = [data] if isinstance(data, (bytes, np.ndarray)) else data
        file = self._file or self._start()
        left = nbytes
        for slab in slabs:
            raw = slab if isinstance(slab, bytes) else np.ascontiguousarray(slab).reshape(-1).view(np.uint8).data
            left -= len(raw)
            if left < 0:
                break
            with self._disk_errors():
                file.write(raw)
        if left:
            raise ValueError(f"tensor {name!r} has {nbytes} bytes, {nbytes - left} were given")
        with self._disk_errors():
            file.write(bytes(_padded(nbytes) - nbytes))
        self._written += 1

    def __enter__(self) -> GGUFWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._file:
                with suppress(OSError):  # the write that hit a full disk has already reported it
                    self._file.close()
                self._part.unlink(missing_ok=True)

    def _start(self) -> BinaryIO:
        nbytes = self.nbytes
        with self._disk_errors():
            free = shutil.disk_usage(self.path.parent).free
            if nbytes > free:
                why = f"the file needs {nbytes} bytes, but only {free} are free"
                raise DiskFull(f"no room for {self.path}", why=why, path=str(self.path), expected=nbytes, actual=free)
            self._file = self._part.open("wb")
            self._file.write(self._header())
        return self._file

    def _finish(self) -> None:
        if self._written < len(self._tensors):
            missing = list(self._tensors)[self._written]
            raise ValueError(f"tensor {missing!r} was declared but never written")
        file = self._file or self._start()
        with self._disk_errors():
            sync_file(file)
            self._part.replace(self.path)
            sync_directory(self.path.parent)

    def _header(self) -> bytes:
        parts = [MAGIC, struct.pack("<IQQ", VERSION, len(self._tensors), len(self._values))]
        for key, (value_type, raw) in self._values.items():
            parts += [encode_string(key), struct.pack("<I", value_type), raw]
        offset = 0
        for name, tensor in self._tensors.items():
            n_dims = len(tensor.shape)
            place = struct.pack(f"<I{n_dims}QIQ", n_dims, *tensor.shape, tensor.type.id, offset)
            parts += [encode_string(name), place]
            offset += _padded(tensor.nbytes)
        header = b"".join(parts)
        return header + bytes(_padded(len(header)) - len(header))

    def _still_declaring(self) -> None:
        if self._file:
            raise ValueError("the header is already written")

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            path = str(self.path)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"no room for {path}", why=error.strerror or str(error), path=path) from None
            raise EdgellmError(f"{path} cannot be written", why=error.strerror or str(error), path=path) from None


def _padded(nbytes: int) -> int:
    return -(-nbytes // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
