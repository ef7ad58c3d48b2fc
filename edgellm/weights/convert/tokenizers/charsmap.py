"""Compiles a map of characters into SentencePiece's form, which the engine normalizes texts with.

    charsmap({"ｆ": "f", "\u00a0": " "})

The form is a double-array trie over the UTF-8 bytes of the keys, and the replacements, each ended by a zero byte.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

# A unit holds its label; where its children are (their labels are XORed with that place); whether a key ends there.
_KEY_ENDS, _IS_VALUE = 1 << 8, 1 << 31
_BLOCK = 256
# Units at the end among which room is looked for.
_SEARCHED = 4 * _BLOCK

# By the next byte what follows it; under 0 the place of the replacement.
_Trie = dict[int, Any]
_Places = npt.NDArray[np.int64]


def charsmap(replacements: Mapping[str, str]) -> bytes:
    """The map as `tokenizer.ggml.precompiled_charsmap` holds it."""
    texts = bytearray()
    trie: _Trie = {}
    for key, text in replacements.items():
        _insert(trie, key.encode(), len(texts))
        texts += text.encode() + b"\0"
    units = _double_array(trie)
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + bytes(texts)


def _insert(trie: _Trie, key: bytes, value: int) -> None:
    for byte in key:
        trie = trie.setdefault(byte, {})
    trie[0] = value  # no key holds a zero byte


def _double_array(trie: _Trie) -> list[int]:
    units = np.zeros(0, np.int64)
    used = np.zeros(0, np.bool_)
    taken = np.zeros(0, np.bool_)  # places of children, one family each
    waiting: list[tuple[int, _Trie]] = [(0, trie)]
    while waiting:
        at, children = waiting.pop()
        labels = np.fromiter(children, np.int64)
        free = _places(used, taken, labels)
        if not len(free):
            units, used, taken = (np.append(each, np.zeros(_BLOCK, each.dtype)) for each in (units, used, taken))
            used[0] = True  # the root
            free = _places(used, taken, labels)
        place = int(free[0])
        taken[place] = used[place ^ labels] = True
        units[at] |= _offset(at ^ place) | (_KEY_ENDS if 0 in children else 0)
        for label, child in children.items():
            units[place ^ label] = _IS_VALUE | child if isinstance(child, int) else label
            if not isinstance(child, int):
                waiting.append((place ^ label, child))
    found: list[int] = units.tolist()
    return found


def _places(used: npt.NDArray[np.bool_], taken: npt.NDArray[np.bool_], labels: npt.NDArray[np.int64]) -> _Places:
    """Where children might go, near the end: place XOR label is free for each."""
    places = np.arange(max(0, len(used) - _SEARCHED), len(used))
    fits = ~used[places[:, None] ^ labels].any(axis=1) & ~taken[places]
    free: _Places = places[fits]
    return free


def _offset(offset: int) -> int:
    """An offset as a unit holds it: 21 bits, or a multiple of 256."""
    return offset << 10 if offset < 1 << 21 else (offset << 2) | (1 << 9)
