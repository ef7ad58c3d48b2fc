"""The models on this machine: one small JSON manifest each, written last, so that a model is complete or absent.

store = Store(settings.models)
store.get("smollm2").path
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote, unquote

from edgellm.errors import ModelNotFound
from edgellm.files import write_atomically
from edgellm.suggest import did_you_mean

# What Ollama's clients add to a name without a tag.
LATEST = ":latest"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a model; `sha256` is what it had when it was installed."""

    path: Path
    size: int
    sha256: str

    @property
    def is_whole(self) -> bool:
        """Whether the file still has the size it was installed with; cheap, unlike its sha256."""
        return self.path.is_file() and self.path.stat().st_size == self.size


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model file with a name; `installed` is when, as ISO 8601, and `source` where it came from.

    `parts` are the second and later files of a split model; the engine finds them beside the first. `base` is the model
    that it was made from by fine-tuning, or that it changes if it is an adapter.
    """

    name: str
    path: Path
    size: int
    sha256: str
    source: str
    installed: str
    parts: tuple[StoredFile, ...] = ()
    base: str | None = None

    @classmethod
    def of(cls, name: str, files: Sequence[StoredFile], source: str, *, base: str | None = None) -> InstalledModel:
        """A model of these files, the first one first, installed now."""
        first, *parts = files
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return cls(name, first.path, first.size, first.sha256, source, now, tuple(parts), base)

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All files, the first one first."""
        return (StoredFile(self.path, self.size, self.sha256), *self.parts)

    @property
    def is_whole(self) -> bool:
        """Whether all files still have the sizes they were installed with; cheap, unlike their sha256."""
        return all(part.is_whole for part in self.files)


class Store:
    """A directory of model files and their manifests."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def file_path(self, name: str, filename: str) -> Path:
        """Where the file of a model belongs."""
        return self.directory / _as_file_name(name) / filename

    def lock_path(self, name: str) -> Path:
        """The lock to hold while making or changing a model of that name."""
        return self.directory / f".{_as_file_name(name)}.lock"

    def names(self) -> list[str]:
        """Names of the installed models, without reading the manifests."""
        return sorted(unquote(path.stem) for path in self.directory.glob("*.json"))

    def all(self) -> list[InstalledModel]:
        """All models with a name; a manifest that cannot be read is left out."""
        found = (self._load(self.manifest(name)) for name in self.names())
        return [model for model in found if model is not None]

    def list(self) -> list[InstalledModel]:
        """All installed models by name; one whose file is gone is left out."""
        return [model for model in self.all() if model.path.is_file()]

    def find(self, name: str) -> InstalledModel | None:
        """The model of that name, or None; its file is there."""
        model = self._named(name)
        return model if model is not None and model.path.is_file() else None

    def get(self, name: str) -> InstalledModel:
        """The model of that name, even if somebody deleted its file; `ModelNotFound` suggests the nearest one."""
        model = self._named(name)
        if model is not None:
            return model
        guess = did_you_mean(name, self.names())
        raise ModelNotFound(
            f"no model {name!r} is installed",
            why=f"did you mean {guess}?" if guess else "",
            hint="edgellm list",
            name=name,
            suggestion=guess,
        )

    def _named(self, name: str) -> InstalledModel | None:
        """The model of that name; else of the same in other letters, or without the `:latest` that Ollama adds."""
        if not _is_plain(name):
            return None
        if (model := self._load(self.manifest(name))) is not None:
            return model
        plain = name.lower().removesuffix(LATEST)
        alike = [known for known in self.names() if known.lower() == plain]
        return self._load(self.manifest(alike[0])) if len(alike) == 1 else None

    def add(self, model: InstalledModel) -> None:
        """Write a model's manifest; its files must be in place."""
        parts = [{**asdict(part), "path": self._stored(part.path)} for part in model.parts]
        data = {**asdict(model), "path": self._stored(model.path), "parts": parts}
        write_atomically(self.manifest(model.name), json.dumps(data, indent=2).encode())

    def forget(self, model: InstalledModel) -> None:
        """Forget a name; its files stay (see `removal`)."""
        self.manifest(model.name).unlink(missing_ok=True)

    def _stored(self, path: Path) -> str:
        """Relative inside the store, so that the store can be moved."""
        return str(path.relative_to(self.directory) if path.is_relative_to(self.directory) else path)

    def manifest(self, name: str) -> Path:
        """Where a model's name, file and hash are written down."""
        return self.directory / f"{_as_file_name(name)}.json"

    def _load(self, manifest: Path) -> InstalledModel | None:
        try:
            data = json.loads(manifest.read_text(encoding="utf-8"))
            parts = tuple(self._part(part) for part in data.get("parts", ()))
            first = self._part(data)
            name, source, installed = (str(data[key]) for key in ("name", "source", "installed"))
            base = None if data.get("base") is None else str(data["base"])
        except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
            return None
        return InstalledModel(name, first.path, first.size, first.sha256, source, installed, parts, base)

    def _part(self, data: dict[str, object]) -> StoredFile:
        size = data["size"]
        if not isinstance(size, int):
            raise TypeError("a size is a number")
        return StoredFile(self.directory / str(data["path"]), size, str(data["sha256"]))


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and "\0" not in name


def _as_file_name(name: str) -> str:
    """A name with slashes (user/repo:Q4_K_M) as the name of one file."""
    return quote(name, safe=":+@ ")
