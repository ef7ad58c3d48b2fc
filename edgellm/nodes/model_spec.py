"""Which model the nodes answer with, by its content, and how they open it.

    spec = ModelSpec.of(here, local, load, report=report)
    ModelSpec.from_message(spec.as_message()) == spec

A node accepts no file but the one with these hashes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.batch.record import part_digests
from edgellm.formats.gguf_split import part_paths
from edgellm.machine.child import Message
from edgellm.models.recipe import Recipe
from edgellm.progress import Report, silent
from edgellm.run.loader import LoadOptions
from edgellm.version import __version__

if TYPE_CHECKING:
    from edgellm.workspace import LocalModel, Workspace


@dataclass(frozen=True, slots=True)
class ModelPart:
    """A file of the model: where it is on the driver's machine, its bytes and its sha256."""

    path: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name."""
        return Path(self.path).name


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model and how to open it.

    `name` is what the user called it. `version` and `stamp` are those of this edgellm and its patches: another one may
    answer differently. `load` has the fields of `LoadOptions` that hold for every node. `n_actors` share a node.
    """

    name: str
    parts: tuple[ModelPart, ...]
    recipe: Recipe | None
    load: dict[str, Any]
    version: str
    stamp: str
    n_actors: int = 1

    @classmethod
    def of(
        cls, here: Workspace, local: LocalModel, load: LoadOptions, *, n_actors: int = 1, report: Report = silent
    ) -> ModelSpec:
        """The model that is here, to be opened with these options."""
        digests = part_digests(local.path, here.store, report=report)
        parts = tuple(
            ModelPart(str(path.absolute()), path.stat().st_size, sha256)
            for path, sha256 in zip(part_paths(local.path), digests, strict=True)
        )
        fields = asdict(replace(load, tuning=None, adapters=()))
        how = {name: fields[name] for name in _LOAD}
        return cls(local.name, parts, local.recipe, how, __version__, here.stack.stamp, n_actors)

    @property
    def size(self) -> int:
        """The bytes of all parts."""
        return sum(part.size for part in self.parts)

    @property
    def options(self) -> LoadOptions:
        """How to open it."""
        return LoadOptions(**self.load)

    def as_message(self) -> Message:
        """The spec as a message."""
        recipe = self.recipe.model_dump(mode="json") if self.recipe else None
        return {**{name: getattr(self, name) for name in ("name", "load", "version", "stamp", "n_actors")},
                "parts": [asdict(part) for part in self.parts], "recipe": recipe}  # fmt: skip

    @classmethod
    def from_message(cls, message: Message) -> ModelSpec:
        """The spec of a message."""
        recipe, parts = message["recipe"], message["parts"]
        known = None if recipe is None else Recipe.model_validate(recipe, strict=False)
        return cls(**{**message, "parts": tuple(ModelPart(**part) for part in parts), "recipe": known})


_LOAD = ("n_ctx", "n_threads", "kv_type", "max_memory", "force", "n_slots", "use_tuning", "draft")
