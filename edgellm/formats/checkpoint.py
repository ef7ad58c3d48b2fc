"""The tensors of a checkpoint directory in the Hub's layout: one .safetensors file, or shards with an index.

checkpoint = Checkpoint.open("bitnet-b1.58-2B-4T")
for rows in checkpoint.slabs("model.embed_tokens.weight", rows=4096):
    ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgellm.errors import CorruptFile, EdgellmError, ModelNotFound, UnsupportedModel
from edgellm.formats.json_object import parse_object
from edgellm.formats.safetensors_file import SafetensorsFile, StoredTensor

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_INDEX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Maps each tensor of a directory to its file. Data are read on demand; no file stays open."""

    directory: Path
    files: Mapping[str, SafetensorsFile]

    @classmethod
    def open(cls, directory: str | Path) -> Checkpoint:
        """Find and check the files: model.safetensors, or the shards in the index, or the only .safetensors file.

        Raises ModelNotFound when the directory does not exist or holds no weights, UnsupportedModel when it
        holds only pickles, and CorruptFile when the index and the shards disagree.
        """
        directory = Path(directory)
        if not directory.is_dir():
            raise ModelNotFound(f"there is no directory {directory}", path=str(directory))
        if not (directory / SINGLE_FILE).exists() and (directory / INDEX_FILE).exists():
            return cls(directory, _open_shards(directory))
        file = SafetensorsFile.open(_only_file(directory))
        return cls(directory, dict.fromkeys(file.tensors, file))

    def __contains__(self, name: str) -> bool:
        return name in self.files

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tensors."""
        return tuple(self.files)

    def tensor(self, name: str) -> StoredTensor:
        """Return a tensor's shape, dtype and size; CorruptFile when no tensor has that name."""
        return self._file(name).tensors[name]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Return a tensor or some of its rows, as `SafetensorsFile.read`; CorruptFile when no tensor has that name."""
        return self._file(name).read(name, start, stop)

    def slabs(self, name: str, rows: int) -> Iterator[npt.NDArray[Any]]:
        """Yield a tensor in slabs of at most `rows` rows, one in memory at a time."""
        for start in range(0, (self.tensor(name).shape or (1,))[0], rows):
            yield self.read(name, start, start + rows)

    def _file(self, name: str) -> SafetensorsFile:
        file = self.files.get(name)
        if file is None:
            raise CorruptFile(f"{self.directory.name} is incomplete", why=f"it has no tensor {name!r}", tensor=name)
        return file


def _open_shards(directory: Path) -> dict[str, SafetensorsFile]:
    shard_of = _read_index(directory / INDEX_FILE)
    shards = sorted(set(shard_of.values()))
    missing = [shard for shard in shards if not (directory / shard).is_file()]
    if missing:
        why = f"{len(missing)} of {len(shards)} shards are missing: {', '.join(missing[:3])}"
        raise CorruptFile(
            f"{directory.name} is incomplete", why=why, hint="download the model again", missing=len(missing)
        )
    opened = {shard: SafetensorsFile.open(directory / shard) for shard in shards}
    for name, shard in shard_of.items():
        if name not in opened[shard].tensors:
            why = f"{INDEX_FILE} places tensor {name!r} in {shard}, where it is not"
            raise CorruptFile(f"{directory.name} is corrupt", why=why, tensor=name)
    return {name: opened[shard] for name, shard in shard_of.items()}


def _read_index(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise CorruptFile(f"{path.name} is corrupt", why=f"it is larger than {MAX_INDEX_BYTES >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise EdgellmError(f"{path} cannot be read", why=error.strerror or str(error), path=str(path)) from None
    shard_of = parse_object(data, name=path.name).get("weight_map")
    if not isinstance(shard_of, dict) or not all(isinstance(shard, str) for shard in shard_of.values()):
        raise CorruptFile(f"{path.name} is corrupt", why="its weight_map is not a table of file names")
    for shard in set(shard_of.values()):
        # Only a bare file name is accepted: an index must not point outside its directory.
        if Path(shard).name != shard or "\\" in shard or "\0" in shard or not shard.endswith(".safetensors"):
            raise CorruptFile(f"{path.name} is corrupt", why=f"{shard[:80]!r} is not the name of a shard")
    return shard_of


def _only_file(directory: Path) -> Path:
    if (directory / SINGLE_FILE).exists():
        return directory / SINGLE_FILE
    found = sorted(directory.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    if found:
        why = f"it has {len(found)} .safetensors files and no {INDEX_FILE}"
        raise CorruptFile(f"{directory.name} is incomplete", why=why, hint="download the model again")
    if any(directory.glob("*.bin")) or any(directory.glob("*.pt")):
        why = "its weights are pickles, and opening a pickle can run arbitrary code"
        raise UnsupportedModel(f"{directory.name} cannot be read", why=why, hint="look for a safetensors version")
    raise ModelNotFound(
        f"there is no checkpoint in {directory}", why="it has no .safetensors file", path=str(directory)
    )
