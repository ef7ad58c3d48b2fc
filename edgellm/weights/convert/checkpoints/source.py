"""A checkpoint directory for the converters: its configuration, its tensors, and which of them are claimed.

A converter claims every tensor it converts, with the shape it expects. A tensor left unclaimed means that the
model computes something that the architecture of the new file does not.

    source = Source.open(directory, JsonFile.read(directory / "config.json"))
    source.claim("model.norm.weight", (source.config.integer("hidden_size"),))
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import CorruptFile
from edgellm.formats.checkpoint import Checkpoint
from edgellm.weights.convert.json_file import JsonFile
from edgellm.weights.slabs import Floats, Values

FLOATS = ("F32", "F16", "BF16", "F64")
# Buffers that older files store although every model recomputes them.
_RECOMPUTED = re.compile(r"(^|\.)(rotary_emb\.inv_freq|masked_bias|position_ids)$")
# Where huggingface_hub keeps downloads: models--OWNER--NAME/snapshots/REVISION.
_CACHED = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")


class Source:
    """A checkpoint whose tensors can be claimed and read."""

    def __init__(self, directory: Path, config: JsonFile, checkpoint: Checkpoint) -> None:
        self.directory = directory
        self.config = config
        self.name = model_name(directory)
        self._checkpoint = checkpoint
        self._claimed: set[str] = set()

    @classmethod
    def open(cls, directory: Path, config: JsonFile) -> Source:
        """Check the headers of the weight files; raises what `Checkpoint.open` raises."""
        return cls(directory, config, Checkpoint.open(directory))

    def __contains__(self, name: str) -> bool:
        return name in self._checkpoint

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor; CorruptFile when no tensor has that name."""
        return self._checkpoint.tensor(name).shape

    def dtype(self, name: str) -> str:
        """Return the dtype of a tensor as named in the file ("BF16")."""
        return self._checkpoint.tensor(name).dtype

    def claim(self, name: str, shape: tuple[int, ...], *dtypes: str) -> None:
        """Mark a tensor as used; CorruptFile unless it has this shape and one of `dtypes` (default: the floats)."""
        stored = self._checkpoint.tensor(name)
        self._claimed.add(name)
        expected = dtypes or FLOATS
        if stored.shape != shape or stored.dtype not in expected:
            why = f"tensor {name!r} is {stored.dtype} {list(stored.shape)}, not {expected[0]} {list(shape)}"
            raise CorruptFile(f"{self.name} does not match its config.json", why=why, tensor=name)

    def ignore(self, *names: str) -> None:
        """Mark tensors as not needed; names that do not exist are allowed."""
        self._claimed.update(names)

    def unclaimed(self) -> list[str]:
        """Return the names of the tensors that were neither claimed nor ignored."""
        return [name for name in self._checkpoint.names if name not in self._claimed and not _RECOMPUTED.search(name)]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tensors."""
        return self._checkpoint.names

    def array(self, name: str) -> npt.NDArray[Any]:
        """Read a tensor in its stored dtype."""
        return self._checkpoint.read(name)

    def floats(self, name: str) -> Values:
        """Read a tensor of floats; CorruptFile when one is NaN or infinite."""
        return self._as_float32(self._checkpoint.read(name), name)

    def slabs(self, name: str, rows: int) -> Iterator[Floats]:
        """Read a matrix of floats in slabs of at most `rows` rows; raises what `floats` raises."""
        for slab in self._checkpoint.slabs(name, rows):
            yield Floats(self._as_float32(slab, name))

    def _as_float32(self, array: npt.NDArray[Any], name: str) -> Values:
        with np.errstate(over="ignore"):  # a float64 out of range becomes infinite, which the check below catches
            values: Values = array.astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            why = f"tensor {name!r} holds numbers that are not finite"
            raise CorruptFile(f"{self.name} is corrupt", why=why, tensor=name)
        return values


def model_name(directory: Path) -> str:
    """Return a checkpoint's name: its directory's, or its repository's in huggingface_hub's cache."""
    directory = directory.resolve()
    for part in reversed(directory.parts):
        if cached := _CACHED.fullmatch(part):
            return cached["name"]
    return directory.name or "model"
