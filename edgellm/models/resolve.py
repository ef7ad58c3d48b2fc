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
        path = Path(name).expanduser()
        if not path.exists():
            raise ModelNotFound(f"there is no file {path}", hint="edgellm list", path=str(path))
        return path
    installed = store.find(name)
    if installed is not None:
        return installed
    known = recipe_names(recipe_directories)
    if name in known:
        return find_recipe(name, recipe_directories)
    if Path(name).is_file():
        return Path(name)
    guess = did_you_mean(name, [*store.names(), *known])
    raise ModelNotFound(
        f"there is no model {name!r}",
        why=f"did you mean {guess}?" if guess else "it is no installed model, no recipe and no file",
        hint="edgellm list --available",
        name=name,
        suggestion=guess,
    )


def _is_path(name: str) -> bool:
    return os.sep in name or name.endswith(".gguf") or name in (".", "..") or name.startswith("~")
