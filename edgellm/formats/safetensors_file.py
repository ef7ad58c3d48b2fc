"""Reads a .safetensors file: checks its header, and returns tensors whole or by rows.

Layout: u64 length of the header | the header, a JSON object | the tensor data

    {"__metadata__": {...}, "lm_head.weight": {"dtype": "BF16", "shape": [32000, 1536], "data_offsets": [0, 98304000]}}

Offsets count from the end of the header. Tensors are read, not mapped: memory holds only what was requested,
and a file that shrinks while it is open raises an error instead of a signal.

    weights = SafetensorsFile.open("model.safetensors").read("lm_head.weight", 0, 1024)
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from edgellm.errors import CorruptFile, EdgellmError, ModelNotFound, UnsupportedModel
from edgellm.formats.json_object import parse_object
from edgellm.formats.sniff import SNIFF_BYTES, looks_like

# Enough for 100,000 tensors. The format allows 100 MB, which hostile JSON would turn into gigabytes of objects.
MAX_HEADER_BYTES = 16 << 20
MAX_DIMS = 8
MAX_NAME_LENGTH = 1024
_MAX_ELEMENTS = 1 << 48

# BF16 is read as uint16, which becomes the upper half of a float32.
DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor: dtype as named in the file, numpy shape, absolute offset in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """The header of one file; the file itself does not stay open."""

    path: Path
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]

    @classmethod
    def open(cls, path: str | Path) -> SafetensorsFile:
        """Read and check the header.

        Raises ModelNotFound when the file does not exist, CorruptFile when it is truncated, inconsistent or not
        safetensors at all, and UnsupportedModel when a tensor has an unknown dtype.
        """
        path = Path(path)
        header, data_offset, size = _read_header(path)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise _corrupt(path, "its __metadata__ is not a table of strings")
        tensors = [_tensor(path, name, entry, data_offset) for name, entry in header.items()]
        _check_places(path, tensors, data_offset, size)
        return cls(path, MappingProxyType({tensor.name: tensor for tensor in tensors}), MappingProxyType(metadata))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Return a tensor, or its rows `start` to `stop` (first axis), as a new array; BF16 becomes float32."""
        tensor = self.tensors[name]
        dtype = DTYPES[tensor.dtype]
        if start == 0 and stop is None:
            shape, skipped = tensor.shape, 0
        elif not tensor.shape:
            raise _corrupt(self.path, f"tensor {name!r} is a single number where rows are expected")
        else:
            first, last, _ = slice(start, stop).indices(tensor.shape[0])
            shape = (max(0, last - first), *tensor.shape[1:])
            skipped = first * math.prod(tensor.shape[1:]) * dtype.itemsize
        array = np.empty(shape, dtype)
        self._fill(array, tensor.offset + skipped)
        if tensor.dtype == "BF16":
            return np.left_shift(array, 16, dtype=np.uint32).view(np.float32)
        return array

    def _fill(self, array: npt.NDArray[Any], offset: int) -> None:
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(offset)
                rest = array.reshape(-1).view(np.uint8).data
                while rest:
                    count = file.readinto(rest)
                    if not count:
                        raise _corrupt(self.path, f"truncated: {len(rest)} bytes are missing since it was opened")
                    rest = rest[count:]
        except OSError as error:
            raise _unreadable(self.path, error) from None


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """Return the parsed header, the offset of the data, and the size of the file."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(SNIFF_BYTES)
            if len(start) < 9 or start[8:9] != b"{":
                raise CorruptFile(f"{path.name} is not a safetensors file", why=f"it is {looks_like(start)}")
            (length,) = struct.unpack_from("<Q", start)
            if 8 + length > size:
                why = f"truncated: its header ends at byte {8 + length}, the file has {size}"
                raise CorruptFile(f"{path.name} is corrupt", why=why, expected=8 + length, actual=size)
            if length > MAX_HEADER_BYTES:
                raise _corrupt(path, f"its header is larger than {MAX_HEADER_BYTES >> 20} MiB")
            file.seek(8)
            return parse_object(file.read(length), name=path.name), 8 + length, size
    except FileNotFoundError:
        raise ModelNotFound(f"there is no file {path}", path=str(path)) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _tensor(path: Path, name: str, entry: object, data_offset: int) -> StoredTensor:
    if not isinstance(entry, dict) or len(name) > MAX_NAME_LENGTH:
        raise _corrupt(path, f"tensor {name[:80]!r} is described by a {type(entry).__name__}, or its name is too long")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise _corrupt(path, f"the description of tensor {name!r} is incomplete or of the wrong kind")
    if dtype not in DTYPES:
        why = f"tensor {name!r} has the dtype {dtype[:20]!r}; supported are {', '.join(DTYPES)}"
        raise UnsupportedModel(f"{path.name} cannot be read", why=why, tensor=name)
    begin, end = offsets
    nbytes = math.prod(shape) * DTYPES[dtype].itemsize
    # With a dimension of 0, the size in bytes says nothing about the other dimensions.
    if end - begin != nbytes or math.prod(n or 1 for n in shape) > _MAX_ELEMENTS:
        why = f"tensor {name!r} of {dtype} {shape} takes {nbytes} bytes, the header gives it {end - begin}"
        raise _corrupt(path, why)
    return StoredTensor(name, dtype, tuple(shape), data_offset + begin, nbytes)


def _naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) <= MAX_DIMS and all(type(n) is int and n >= 0 for n in value)


def _check_places(path: Path, tensors: list[StoredTensor], data_offset: int, size: int) -> None:
    """Check that tensors fill the file without gaps or overlaps, as the format requires."""
    expected = data_offset
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != expected:
            kind = "overlaps the one before it" if tensor.offset < expected else "leaves a gap before it"
            raise _corrupt(path, f"tensor {tensor.name!r} at byte {tensor.offset} {kind}")
        expected += tensor.nbytes
    if expected != size:
        kind = "truncated" if size < expected else "bytes follow the last tensor"
        why = f"{kind}: its tensors end at byte {expected}, the file has {size}"
        raise CorruptFile(f"{path.name} is corrupt", why=why, expected=expected, actual=size)


def _corrupt(path: Path, why: str) -> CorruptFile:
    return CorruptFile(f"{path.name} is corrupt", why=why, path=str(path))


def _unreadable(path: Path, error: OSError) -> EdgellmError:
    return EdgellmError(f"{path} cannot be read", why=error.strerror or str(error), path=str(path))
