"""Names the files of a split GGUF model: the first holds the metadata, and each holds some of the tensors.

part_names("qwen-00001-of-00002.gguf")  ->  ["qwen-00001-of-00002.gguf", "qwen-00002-of-00002.gguf"]
"""

from __future__ import annotations

import re
from pathlib import Path

from edgellm.errors import CorruptFile

MAX_PARTS = 999
_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def part_names(name: str) -> list[str]:
    """Return the names of all parts of the model whose first part is `name`; just `name` for a whole model.

    Raises CorruptFile for any part but the first, because the engine opens a model by its first part.
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
    """Return the paths of all parts of a model, which lie in the same directory."""
    return [path.with_name(name) for name in part_names(path.name)]
