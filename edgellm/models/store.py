"""The models on this machine: one small JSON manifest each, written last, so a model is there whole or not at all.

store = Store(settings.models)
store.get("smollm2").path
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from edgellm.errors import ModelNotFound
from edgellm.files import write_atomically
from edgellm.suggest import did_you_mean


@dataclass(frozen=True, slots=True)
class Part:
    """A further file of a model that comes in several."""

    path: Path
    size: int
    sha256: str

    @property
    def is_whole(self) -> bool:
        """Whether the file still has the size it was installed with; cheap, unlike its sha256."""
        return self.path.is_file() and self.path.stat().st_size == self.size


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model file with a name; `sha256` is what the file had when it was installed.

    `parts` are the second and later files of a split model; the engine finds them beside the first.
    """

    name: str
    path: Path
    size: int
    sha256: str
    source: str
    installed: str
    parts: tuple[Part, ...] = ()

    @property
    def files(self) -> tuple[Part, ...]:
        """All files, the first one first."""
        return (Part(self.path, self.size, self.sha256), *self.parts)

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
        """The lock to hold while a model of that name is made or changed."""
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
        model = self._load(self.manifest(name)) if _is_plain(name) else None
        return model if model is not None and model.path.is_file() else None

    def get(self, name: str) -> InstalledModel:
        """The model of that name, even if somebody deleted its file; `ModelNotFound` suggests the nearest one."""
        model = self._load(self.manifest(name)) if _is_plain(name) else None
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

    def add(self, model: InstalledModel) -> None:
        """Make a file that is in place known under its name."""
        parts = [{**asdict(part), "path": self._stored(part.path)} for part in model.parts]
        data = {**asdict(model), "path": self._stored(model.path), "parts": parts}
        write_atomically(self.manifest(model.name), json.dumps(data, indent=2).encode())

    def forget(self, model: InstalledModel) -> None:
        """Forget a name; its files stay (see `removing`)."""
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
        except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
            return None
        return InstalledModel(name, first.path, first.size, first.sha256, source, installed, parts)

    def _part(self, data: dict[str, object]) -> Part:
        size = data["size"]
        if not isinstance(size, int):
            raise TypeError("a size is a number")
        return Part(self.directory / str(data["path"]), size, str(data["sha256"]))


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and "\0" not in name


def _as_file_name(name: str) -> str:
    """A name with slashes (user/repo:Q4_K_M) as the name of one file."""
    return quote(name, safe=":+@ ")
