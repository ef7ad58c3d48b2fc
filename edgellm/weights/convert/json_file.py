"""Reads untrusted JSON from a checkpoint directory, bounded in size and with type-checked getters.

config = JsonFile.read(directory / "config.json")
config.integer("hidden_size", low=1, high=1 << 20)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from edgellm.errors import CorruptFile, NotText
from edgellm.formats.json_object import parse_object
from edgellm.text import decode_text

# Gemma's tokenizer.json, the largest in use, has 33 MB; parsed JSON takes about ten times its size in memory.
MAX_JSON_BYTES = 64 << 20

_LARGEST_FLOAT32 = float.fromhex("0x1.fffffep+127")
_MISSING: Any = object()
_T = TypeVar("_T")


class JsonFile:
    """A JSON object and the file it came from; getters raise CorruptFile for a value of the wrong type.

    It remembers which keys were asked for, so that a reader can find those that nobody read.
    """

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.name = name
        self.values = values
        self._read: set[str] = set()
        self._children: dict[str, JsonFile] = {}

    @classmethod
    def read(cls, path: Path) -> JsonFile:
        """Parse the file; CorruptFile unless it holds a JSON object and is not too large."""
        return cls(path.name, parse_object(read_bytes(path, MAX_JSON_BYTES), name=path.name))

    @classmethod
    def read_list(cls, path: Path) -> list[JsonFile]:
        """Parse a file that holds a list of objects."""
        data = f'{{"entries":{read_whole_text(path)}}}'.encode()
        return cls(path.name, parse_object(data, name=path.name)).children("entries")

    @classmethod
    def read_if_there(cls, path: Path) -> JsonFile:
        """Like `read`, but return an empty object when the file does not exist."""
        return cls.read(path) if path.is_file() else cls(path.name, {})

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def ignore(self, *keys: str) -> None:
        """Mark keys as read; keys that do not exist are allowed."""
        self._read.update(keys)

    def unread(self) -> dict[str, Any]:
        """Return the keys that nobody asked for, with their values; null is like an absent key."""
        return {key: value for key, value in self.values.items() if value is not None and key not in self._read}

    def nested(self) -> list[JsonFile]:
        """Return the nested objects that were asked for."""
        return list(self._children.values())

    def integer(self, key: str, default: int = _MISSING, *, low: int = 0, high: int = (1 << 31) - 1) -> int:
        """Return an integer from `low` to `high`; 4096.0 also counts as an integer."""
        value = self._get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._wrong(key, f"an integer from {low} to {high}")
        return value

    def number(self, key: str, default: float = _MISSING) -> float:
        """Return a number that a float32 can hold."""
        value = self._get(key, default)
        if not _is_number(value):
            raise self._wrong(key, "a number")
        return float(value)

    def flag(self, key: str, default: bool = _MISSING) -> bool:
        """Return a boolean."""
        return self._typed(key, default, bool, "true or false")

    def text(self, key: str, default: str = _MISSING) -> str:
        """Return a string."""
        return self._typed(key, default, str, "a string")

    def items(self, key: str) -> list[Any]:
        """Return a list of any values, empty when the key is absent."""
        return self._typed(key, [], list, "a list")

    def numbers(self, key: str) -> list[float]:
        """Return a list of numbers that a float32 can hold, empty when the key is absent."""
        values = self.items(key)
        if not all(_is_number(value) for value in values):
            raise self._wrong(key, "a list of numbers")
        return [float(v) for v in values]

    def child(self, key: str) -> JsonFile:
        """Return a nested object, empty when the key is absent; always the same one."""
        if key not in self._children:
            self._children[key] = JsonFile(f"{self.name}: {key}", self._typed(key, {}, dict, "an object"))
        return self._children[key]

    def children(self, key: str) -> list[JsonFile]:
        """Return a list of objects, empty when the key is absent."""
        values = self.items(key)
        if not all(isinstance(v, dict) for v in values):
            raise self._wrong(key, "a list of objects")
        return [JsonFile(f"{self.name}: {key}", v) for v in values]

    def _typed(self, key: str, default: _T, kind: type[_T], expected: str) -> _T:
        value = self._get(key, default)
        if not isinstance(value, kind):
            raise self._wrong(key, expected)
        return value

    def _get(self, key: str, default: Any) -> Any:
        self._read.add(key)
        value = self.values.get(key)
        if value is not None:
            return value
        if default is _MISSING:
            raise CorruptFile(f"{self.name} is incomplete", why=f"it has no {key!r}", key=key)
        return default

    def _wrong(self, key: str, expected: str) -> CorruptFile:
        shown = repr(self.values.get(key))
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return CorruptFile(f"{self.name} is not valid", why=f"{key!r} is {shown}, expected {expected}", key=key)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _LARGEST_FLOAT32


def read_whole_text(path: Path, limit: int = MAX_JSON_BYTES) -> str:
    """Return the text of a file of at most `limit` bytes; CorruptFile when it cannot be read or is no text."""
    try:
        return decode_text(read_bytes(path, limit), path.name)
    except NotText as error:
        raise CorruptFile(error.what, why=error.why, hint=error.hint, path=str(path)) from None


def read_bytes(path: Path, limit: int) -> bytes:
    """Return the contents of a file; CorruptFile when it is absent, unreadable or larger than `limit` bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise CorruptFile(f"{path.name} cannot be read", why=error.strerror or str(error), path=str(path)) from None
    if len(data) > limit:
        raise CorruptFile(f"{path.name} is too large", why=f"it has more than {limit >> 20} MiB", path=str(path))
    return data
