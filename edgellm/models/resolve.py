"""From what a person types to a model: a path, an installed model, a recipe's, or one on the Hub.

resolve("qwen2.5-7b:Q8_0", store, recipe_directories)  ->  InstalledModel, Path, or the Choice to pull
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edgellm.errors import ModelNotFound
from edgellm.models.recipe import Choice, find_recipe, recipe_names
from edgellm.models.reference import parse_reference
from edgellm.models.store import InstalledModel, Store
from edgellm.suggest import did_you_mean


def resolve(name: str, store: Store, recipe_directories: Sequence[Path]) -> Path | InstalledModel | Choice:
    """What `name` stands for, installed models before recipes, files before repositories of the Hub.

    Raises:
        ModelNotFound: nothing of that name; the nearest name is suggested.
    """
    if _is_path(name):
        return _existing(name)
    if _is_file(Path(name)) and os.sep in name:
        return Path(name)
    choice = find_choice(name, recipe_directories)
    installed = store.find(choice.name if choice else name)
    if installed is not None:
        return installed
    if choice is not None:
        return choice
    if _is_file(Path(name)):
        return Path(name)
    raise not_found(name, [*store.names(), *recipe_names(recipe_directories)])


def find_choice(name: str, recipe_directories: Sequence[Path]) -> Choice | None:
    """What there is to pull under a name: a recipe or a variant of one, or a repository on the Hub.

    Raises:
        ModelNotFound: the recipe has no such variant.
    """
    short, _, label = name.partition(":")
    if short in recipe_names(recipe_directories):
        return find_recipe(short, recipe_directories).choose(label or None)
    return parse_reference(name)


def recipe_of(name: str, recipe_directories: Sequence[Path]) -> Choice | None:
    """The choice of a recipe that an installed model's name stands for, if it still is one."""
    try:
        choice = find_choice(name, recipe_directories)
    except ModelNotFound:
        return None
    return choice if choice is not None and choice.recipe is not None else None


def not_found(name: str, known: Sequence[str]) -> ModelNotFound:
    """The error for a name that is nothing, with the nearest of the known ones."""
    guess = did_you_mean(name, known)
    return ModelNotFound(
        f"there is no model {name if len(name) <= 60 else name[:57] + '...'!r}",
        why=f"did you mean {guess}?" if guess else "it is no installed model, no recipe and no file",
        hint=f"edgellm pull {guess}" if guess else "edgellm list --available, or edgellm search WORD",
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
    """Whether a name can only be a path: `user/repo` may be one of the Hub."""
    if name.startswith(("hf://", "http://", "https://")):
        return False
    if name in (".", "..") or name.startswith((os.sep, "~", f".{os.sep}", f"..{os.sep}")) or name.endswith(".gguf"):
        return True
    return os.sep in name and parse_reference(name) is None
