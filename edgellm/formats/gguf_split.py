"""A model in several GGUF files: the first has the metadata, each has tensors of its own.

part_names("qwen-q4_k_m-00001-of-00003.gguf")  ->  ["qwen-q4_k_m-00001-of-00003.gguf", "qwen-q4_k_m-00002-of-...", ...]
"""

from __future__ import annotations

import re
from pathlib import Path

from edgellm.errors import CorruptFile

MAX_PARTS = 999
_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def part_names(name: str) -> list[str]:
    """The names of all parts of the model that this file begins; the name itself when it is no part.

    Raises CorruptFile for any part but the first: the engine starts from that one, too.
    """
    match = _PART.fullmatch(name)
    if match is None:
        return [name]
    stem, number, count = match["stem"], int(match["number"]), int(match["count"])
    if number != 1 or not 0 < count <= MAX_PARTS:
        first = f"{stem}-00001-of-{match['count']}.gguf"
        raise CorruptFile(f"{name} is a part of a model", why="a model begins with its first part", hint=f"use {first}")
    return [f"{stem}-{part:05}-of-{count:05}.gguf" for part in range(1, count + 1)]


def part_paths(path: Path) -> list[Path]:
    """The same as files beside each other."""
    return [path.with_name(name) for name in part_names(path.name)]
