"""The models on this machine: one small JSON manifest each, written last, so a model is there whole or not at all.

store = Store(settings.models)
store.get("smollm2").path
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from edgellm.errors import ModelNotFound
from edgellm.files import write_atomically
from edgellm.suggest import did_you_mean


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model file with a name; `sha256` is what the file had when it was installed."""

    name: str
    path: Path
    size: int
    sha256: str
    source: str
    installed: str

    @property
    def is_whole(self) -> bool:
        """Whether the file still has the size it was installed with; cheap, unlike its sha256."""
        return self.path.is_file() and self.path.stat().st_size == self.size


class Store:
    """A directory of model files and their manifests."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def file_path(self, name: str, filename: str) -> Path:
        """Where the file of a model belongs."""
        return self.directory / name / filename

    def names(self) -> list[str]:
        """Names of the installed models, without reading the manifests."""
        return sorted(path.stem for path in self.directory.glob("*.json"))

    def list(self) -> list[InstalledModel]:
        """All installed models by name; a manifest that cannot be read, or whose file is gone, is left out."""
        found = (self._load(self.directory / f"{name}.json") for name in self.names())
        return [model for model in found if model is not None and model.path.is_file()]

    def find(self, name: str) -> InstalledModel | None:
        """The model of that name, or None; its file is there."""
        model = self._load(self._manifest(name)) if _is_plain(name) else None
        return model if model is not None and model.path.is_file() else None

    def get(self, name: str) -> InstalledModel:
        """The model of that name, even if somebody deleted its file; `ModelNotFound` suggests the nearest one."""
        model = self._load(self._manifest(name)) if _is_plain(name) else None
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
        inside = model.path.is_relative_to(self.directory)
        # Relative inside the store, so that the store can be moved.
        data = {**asdict(model), "path": str(model.path.relative_to(self.directory) if inside else model.path)}
        write_atomically(self._manifest(model.name), json.dumps(data, indent=2).encode())

    def remove(self, model: InstalledModel) -> int:
        """Forget a model and delete its file if it lies in the store; returns the bytes freed.

        The manifest goes first: a crash in between leaves a file without a name, never a name without a file.
        """
        self._manifest(model.name).unlink(missing_ok=True)
        if not model.path.is_relative_to(self.directory):
            return 0
        size = model.path.stat().st_size if model.path.exists() else 0
        model.path.unlink(missing_ok=True)
        if model.path.parent != self.directory and not any(model.path.parent.iterdir()):
            model.path.parent.rmdir()
        return size

    def _manifest(self, name: str) -> Path:
        return self.directory / f"{name}.json"

    def _load(self, manifest: Path) -> InstalledModel | None:
        try:
            data = json.loads(manifest.read_text(encoding="utf-8"))
            return InstalledModel(**{**data, "path": self.directory / data["path"]})
        except (OSError, ValueError, TypeError, KeyError):
            return None


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name
