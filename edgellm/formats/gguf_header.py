"""Parses the header of a GGUF file from any bytes, and trusts none of the numbers in it.

Layout (little-endian; versions 2 and 3 are identical):

    "GGUF" | u32 version | u64 n_tensors | u64 n_kv
    n_kv times:       string key | u32 type | value
    n_tensors times:  string name | u32 n_dims | u64 ne[n_dims] | u32 type | u64 offset
    zeros up to a multiple of general.alignment (32), then the tensor data

A string is a u64 length and its bytes. An array is a u32 element type, a u64 count and the elements. Offsets
count from the start of the tensor data.

    header = parse_header(first_bytes, file_size=5_000_000_000, name="model.gguf")
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NoReturn

from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.formats.gguf_metadata import SCALAR_FORMATS, U32, U64, Buffer, Field, Metadata, ValueType
from edgellm.formats.sniff import SNIFF_BYTES, looks_like

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32
MAX_DIMS = 4

# Generous multiples of what real models have (16 MB, 60 keys, 2,000 tensors). They bound the time and memory
# that a hostile header can consume.
MAX_HEADER_BYTES = 256 << 20
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_KEY_BYTES = 65535
MAX_TENSOR_NAME_BYTES = 63  # the engine's own limit


class HeaderIncomplete(Exception):
    """The prefix ends inside the header; parsing needs at least the first `needed` bytes of the file."""

    def __init__(self, needed: int) -> None:
        super().__init__(f"the header needs at least {needed} bytes")
        self.needed = needed


@dataclass(frozen=True, slots=True)
class RawTensor:
    """One tensor as the header declares it; its type and offset are not checked yet.

    `shape` is in ne order (row length first); `offset` counts from the start of the tensor data.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header; the tensor data start at byte `data_offset` of the file."""

    version: int
    alignment: int
    metadata: Metadata
    tensors: tuple[RawTensor, ...]
    data_offset: int


class _Cursor:
    """A position in the header that refuses to move past what the file can hold."""

    def __init__(self, data: Buffer, file_size: int, name: str) -> None:
        self.data = data
        self.file_size = file_size
        self.name = name
        self.position = 0
        self._available = len(data)

    def corrupt(self, why: str) -> NoReturn:
        raise CorruptFile(f"{self.name} is corrupt", why=why[:500], at=self.position)

    def check(self, size: int, purpose: str) -> None:
        """Raise unless `size` more bytes can be read at the current position."""
        end = self.position + size
        if end > self.file_size:
            why = f"truncated: {purpose} ends at byte {end}, the file has {self.file_size}"
            raise CorruptFile(f"{self.name} is corrupt", why=why, expected=end, actual=self.file_size)
        if end > MAX_HEADER_BYTES:
            self.corrupt(f"its header is larger than {MAX_HEADER_BYTES >> 20} MiB")
        if end > self._available:
            raise HeaderIncomplete(end)

    def u32(self, purpose: str) -> int:
        self.check(4, purpose)
        self.position += 4
        return int(U32.unpack_from(self.data, self.position - 4)[0])

    def u64(self, purpose: str) -> int:
        self.check(8, purpose)
        self.position += 8
        return int(U64.unpack_from(self.data, self.position - 8)[0])

    def text(self, purpose: str, longest: int) -> str:
        """Read a key or a name: short, not empty, valid UTF-8, and free of NUL, which would end it in C."""
        size = self.u64(purpose)
        if not 0 < size <= longest:
            self.corrupt(f"{purpose} has a length of {size} bytes")
        self.check(size, purpose)
        self.position += size
        try:
            text = self.data[self.position - size : self.position].decode("utf-8")
        except UnicodeDecodeError:
            self.corrupt(f"{purpose} is not UTF-8")
        if "\0" in text:
            self.corrupt(f"{purpose}, {text[:80]!r}, contains a NUL")
        return text

    def value_type(self, purpose: str) -> ValueType:
        code = self.u32(purpose)
        try:
            return ValueType(code)
        except ValueError:
            self.corrupt(f"{purpose} has the unknown value type {code}")

    def skip_strings(self, count: int, purpose: str) -> None:
        self.check(8 * count, purpose)
        data, position = self.data, self.position
        unpack = U64.unpack_from
        try:
            for _ in range(count):  # the hot loop when opening a file: 400,000 iterations for a Llama-3 vocabulary
                position += 8 + unpack(data, position)[0]
        except (struct.error, OverflowError):
            position += 8  # a length field lies past the end: `check` reports which limit it exceeds
        self.check(position - self.position, purpose)
        self.position = position


def parse_header(data: Buffer, *, file_size: int, name: str) -> Header:
    """Parse the header at the start of `data`, which may be a prefix of a file of `file_size` bytes.

    Raises HeaderIncomplete when a longer prefix is needed, CorruptFile when no prefix can be valid, and
    UnsupportedModel for big-endian files and for versions other than 2 and 3.
    """
    cursor = _Cursor(data, file_size, name)
    version = _read_version(cursor)
    n_tensors = cursor.u64("the number of tensors")
    n_keys = cursor.u64("the number of keys")
    if n_tensors > MAX_TENSORS:
        cursor.corrupt(f"it claims {n_tensors} tensors")
    if n_keys > MAX_KEYS:
        cursor.corrupt(f"it claims {n_keys} metadata keys")
    fields: dict[str, Field] = {}
    for _ in range(n_keys):
        key = cursor.text("a metadata key", MAX_KEY_BYTES)
        if key in fields:
            cursor.corrupt(f"the metadata key {key!r} appears twice")
        fields[key] = _read_field(cursor, key)
    metadata = Metadata(data, fields)
    alignment = _alignment(cursor, metadata)
    tensors: dict[str, RawTensor] = {}
    for _ in range(n_tensors):
        tensor = _read_tensor(cursor)
        if tensor.name in tensors:
            cursor.corrupt(f"the tensor {tensor.name!r} appears twice")
        tensors[tensor.name] = tensor
    data_offset = -(-cursor.position // alignment) * alignment
    return Header(version, alignment, metadata, tuple(tensors.values()), data_offset)


def _read_version(cursor: _Cursor) -> int:
    start = bytes(cursor.data[:SNIFF_BYTES])
    if start[:4] != MAGIC[: len(start)] or not cursor.file_size:
        raise CorruptFile(f"{cursor.name} is not a GGUF file", why=f"it is {looks_like(start)}")
    cursor.check(4, "the magic number")
    cursor.position = 4
    version = cursor.u32("the version")
    if version & 0xFFFF == 0 and version:
        why = "it was written for a big-endian machine"
        raise UnsupportedModel(f"{cursor.name} cannot be read", why=why, hint="use the model's little-endian file")
    if version not in (2, 3):
        why = f"it is GGUF version {version}; versions 2 and 3 are supported"
        raise UnsupportedModel(f"{cursor.name} cannot be read", why=why, version=version)
    return version


def _read_field(cursor: _Cursor, key: str) -> Field:
    purpose = f"the value of {key!r}"
    kind = cursor.value_type(purpose)
    if kind is ValueType.STRING:
        size = cursor.u64(purpose)
        return _skip_bytes(cursor, kind, size, purpose)
    if kind is not ValueType.ARRAY:
        return _skip_bytes(cursor, kind, SCALAR_FORMATS[kind].size, purpose)
    element_type = cursor.value_type(purpose)
    count = cursor.u64(purpose)
    if element_type is ValueType.ARRAY:
        cursor.corrupt(f"{purpose} is an array of arrays, which no engine reads")
    start = cursor.position
    if element_type is ValueType.STRING:
        cursor.skip_strings(count, purpose)
    else:
        _skip_bytes(cursor, kind, count * SCALAR_FORMATS[element_type].size, purpose)
    return Field(kind, start, cursor.position, element_type, count)


def _skip_bytes(cursor: _Cursor, kind: ValueType, size: int, purpose: str) -> Field:
    cursor.check(size, purpose)
    start = cursor.position
    cursor.position += size
    return Field(kind, start, cursor.position)


def _alignment(cursor: _Cursor, metadata: Metadata) -> int:
    key = "general.alignment"
    if key not in metadata:
        return DEFAULT_ALIGNMENT
    alignment = metadata[key]
    if metadata.fields[key].type is not ValueType.UINT32 or not isinstance(alignment, int):
        cursor.corrupt(f"{key} is a {metadata.fields[key].type.name}, not a UINT32")
    if alignment == 0 or alignment & (alignment - 1):
        cursor.corrupt(f"{key} is {alignment}, not a power of two")
    return alignment


def _read_tensor(cursor: _Cursor) -> RawTensor:
    name = cursor.text("a tensor name", MAX_TENSOR_NAME_BYTES)
    purpose = f"the description of tensor {name!r}"
    n_dims = cursor.u32(purpose)
    if n_dims > MAX_DIMS:
        cursor.corrupt(f"tensor {name!r} has {n_dims} dimensions, at most {MAX_DIMS} are possible")
    shape = tuple(cursor.u64(purpose) for _ in range(n_dims))
    return RawTensor(name, shape, cursor.u32(purpose), cursor.u64(purpose))
