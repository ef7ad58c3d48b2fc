"""The metadata of a GGUF file: typed keys and values, kept as bytes and decoded on access.

A vocabulary of 150,000 strings costs nothing until it is read, and a writer can copy it without decoding it.

    metadata["llama.context_length"], len(metadata["tokenizer.ggml.tokens"]), metadata.raw("tokenizer.ggml.merges")
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import overload

Scalar = int | float | bool | str
Buffer = bytes | mmap.mmap


class ValueType(IntEnum):
    """The type ids of metadata values, as in `enum gguf_type`."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


SCALAR_FORMATS: Mapping[ValueType, struct.Struct] = {
    ValueType.UINT8: struct.Struct("<B"),
    ValueType.INT8: struct.Struct("<b"),
    ValueType.UINT16: struct.Struct("<H"),
    ValueType.INT16: struct.Struct("<h"),
    ValueType.UINT32: struct.Struct("<I"),
    ValueType.INT32: struct.Struct("<i"),
    ValueType.FLOAT32: struct.Struct("<f"),
    ValueType.BOOL: struct.Struct("<?"),
    ValueType.UINT64: struct.Struct("<Q"),
    ValueType.INT64: struct.Struct("<q"),
    ValueType.FLOAT64: struct.Struct("<d"),
}
U32 = SCALAR_FORMATS[ValueType.UINT32]
U64 = SCALAR_FORMATS[ValueType.UINT64]


class GGUFArray(Sequence[Scalar]):
    """An array value, decoded as its elements are read. Reaching a string takes a walk over those before it."""

    def __init__(self, data: Buffer, element_type: ValueType, count: int, start: int, end: int) -> None:
        self.element_type = element_type
        self._data = data
        self._count = count
        self._start = start
        self._end = end

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Scalar]:
        if self.element_type is not ValueType.STRING:
            for (value,) in SCALAR_FORMATS[self.element_type].iter_unpack(self.raw):
                yield value
            return
        position = self._start
        for _ in range(self._count):
            begin = position + 8
            position = begin + U64.unpack_from(self._data, position)[0]
            yield self._data[begin:position].decode("utf-8", "replace")

    @overload
    def __getitem__(self, index: int) -> Scalar: ...
    @overload
    def __getitem__(self, index: slice) -> list[Scalar]: ...
    def __getitem__(self, index: int | slice) -> Scalar | list[Scalar]:
        if isinstance(index, slice) or self.element_type is ValueType.STRING:
            return list(self)[index]
        layout = SCALAR_FORMATS[self.element_type]
        value: Scalar = layout.unpack_from(self._data, self._start + range(self._count)[index] * layout.size)[0]
        return value

    def __repr__(self) -> str:
        return f"GGUFArray({self.element_type.name}, {self._count})"

    @property
    def raw(self) -> bytes:
        """The elements as stored in the file, without the element type and the count."""
        return self._data[self._start : self._end]


Value = Scalar | GGUFArray


@dataclass(frozen=True, slots=True)
class Field:
    """The byte range `start` to `end` of one metadata value; for an array, the range of its elements."""

    type: ValueType
    start: int
    end: int
    element_type: ValueType | None = None
    count: int = 0


class Metadata(Mapping[str, Value]):
    """The key-value pairs of a header, in file order, decoded on access."""

    def __init__(self, data: Buffer, fields: Mapping[str, Field]) -> None:
        self._data = data
        self.fields = fields

    def __len__(self) -> int:
        return len(self.fields)

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __contains__(self, key: object) -> bool:
        return key in self.fields

    def __getitem__(self, key: str) -> Value:
        field = self.fields[key]
        if field.element_type is not None:
            return GGUFArray(self._data, field.element_type, field.count, field.start, field.end)
        if field.type is ValueType.STRING:
            return self._data[field.start : field.end].decode("utf-8", "replace")
        value: Scalar = SCALAR_FORMATS[field.type].unpack_from(self._data, field.start)[0]
        return value

    def raw(self, key: str) -> bytes:
        """The bytes of a value as a writer copies them, including the length or the array header."""
        field = self.fields[key]
        body = self._data[field.start : field.end]
        if field.element_type is not None:
            return U32.pack(field.element_type) + U64.pack(field.count) + body
        return U64.pack(len(body)) + body if field.type is ValueType.STRING else body


def encode_string(text: str) -> bytes:
    """Return a string as GGUF stores it: its length in bytes, then its UTF-8 bytes."""
    data = text.encode("utf-8")
    return U64.pack(len(data)) + data


def encode_value(value: Scalar | Iterable[Scalar], value_type: ValueType | None = None) -> tuple[ValueType, bytes]:
    """Return the type and the bytes of a metadata value; for an array, `value_type` is the type of its elements.

    By default a string becomes STRING, a bool BOOL, a float FLOAT32, and an integer UINT32 (INT32 in an array),
    as the engine expects for nearly every key. Raises ValueError when the value does not fit its type.
    """
    if isinstance(value, (str, int, float)):
        kind = _type_of(value, ValueType.UINT32) if value_type is None else value_type
        return kind, _encode_scalars([value], kind)
    values = list(value)
    if not values and value_type is None:
        raise ValueError("an empty array needs the type of its elements")
    kind = _type_of(values[0], ValueType.INT32) if value_type is None else value_type
    return ValueType.ARRAY, U32.pack(kind) + U64.pack(len(values)) + _encode_scalars(values, kind)


def _type_of(value: Scalar, integer: ValueType) -> ValueType:
    if isinstance(value, str):
        return ValueType.STRING
    if isinstance(value, bool):
        return ValueType.BOOL
    return integer if isinstance(value, int) else ValueType.FLOAT32


def _encode_scalars(values: Sequence[Scalar], kind: ValueType) -> bytes:
    strings = [encode_string(value) for value in values if isinstance(value, str)]
    if len(strings) != (len(values) if kind is ValueType.STRING else 0):
        raise ValueError(f"a value does not fit {kind.name}: STRING holds strings and nothing else")
    if kind is ValueType.STRING:
        return b"".join(strings)
    try:
        return struct.pack(f"<{len(values)}{SCALAR_FORMATS[kind].format[1:]}", *values)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"a value does not fit {kind.name}: {error}") from None
