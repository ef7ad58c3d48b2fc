"""From what a person types to a model file: a path, an installed model, or a recipe that can be pulled.

resolve("smollm2", store, recipe_directories)  ->  InstalledModel, Path or Recipe
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edgellm.errors import ModelNotFound
from edgellm.models.recipe import Recipe, find_recipe, recipe_names
from edgellm.models.store import InstalledModel, Store
from edgellm.suggest import did_you_mean


def resolve(name: str, store: Store, recipe_directories: Sequence[Path]) -> Path | InstalledModel | Recipe:
    """What `name` stands for, installed models before recipes.

    Raises:
        ModelNotFound: nothing of that name; the nearest name is suggested.
    """
    if _is_path(name):
        return _existing(name)
    installed = store.find(name)
    if installed is not None:
        return installed
    known = recipe_names(recipe_directories)
    if name in known:
        return find_recipe(name, recipe_directories)
    if _is_file(Path(name)):
        return Path(name)
    guess = did_you_mean(name, [*store.names(), *known])
    raise ModelNotFound(
        f"there is no model {name if len(name) <= 60 else name[:57] + '...'!r}",
        why=f"did you mean {guess}?" if guess else "it is no installed model, no recipe and no file",
        hint=f"edgellm show {guess}" if guess else "edgellm list --available",
        name=name,
        suggestion=guess,
    )


def _existing(name: str) -> Path:
    """The file of that path; `ModelNotFound` when it is none."""
    path = Path(os.path.expanduser(name))  # noqa: PTH111, Path's own raises for unknown users
    if _is_file(path):
        return path
    what = "is a directory, not a model file" if path.is_dir() else "is no file that can be read"
    raise ModelNotFound(f"{name[:200]} {what}", hint="edgellm list", path=name[:200])


def _is_file(path: Path) -> bool:
    """Whether it is a regular file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_path(name: str) -> bool:
    return os.sep in name or name.endswith(".gguf") or name in (".", "..") or name.startswith("~")
