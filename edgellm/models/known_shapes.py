"""Shapes by name: those that recipes carry, and those in `recipes/shapes/` of models without a recipe.

find_shape("bitnet-2b", here.recipe_directories).n_layer  ->  30
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from edgellm.errors import CorruptFile, ModelNotFound
from edgellm.models.recipe import load_recipe
from edgellm.models.shape import Shape, parse_shape
from edgellm.suggest import did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DIRECTORY = "shapes"


def find_shape(name: str, directories: Sequence[Path]) -> Shape:
    """The shape of that name; a recipe's own comes before one in `shapes/`.

    Raises:
        ModelNotFound: there is none; the nearest name is suggested.
        CorruptFile: the file that should hold it is not valid.
    """
    recipes = {path.stem: path for directory in directories for path in directory.glob("*.toml")}
    if name in recipes:
        shape = load_recipe(recipes[name]).shape
        if shape is not None:
            return shape
    alone = _alone(directories)
    if name in alone:
        return _read(alone[name])
    known = shape_names(directories)
    guess = did_you_mean(name, known)
    raise ModelNotFound(
        f"there is no shape {name[:60]!r}",
        why=f"did you mean {guess}?" if guess else f"there are {', '.join(known)}",
        hint=f"edgellm bench --shape {guess or known[0]}",
        name=name[:60],
        suggestion=guess,
    )


def shape_names(directories: Sequence[Path]) -> list[str]:
    """The names that `find_shape` knows."""
    recipes = {path.stem: path for directory in directories for path in directory.glob("*.toml")}
    carried = {name for name, path in recipes.items() if load_recipe(path).shape is not None}
    return sorted(carried | set(_alone(directories)))


def _alone(directories: Sequence[Path]) -> dict[str, Path]:
    return {path.stem: path for directory in directories for path in (directory / DIRECTORY).glob("*.toml")}


def _read(path: Path) -> Shape:
    """A file with one table, `[shape]`, as a recipe has it."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        if list(data) != ["shape"]:
            raise ValueError("it holds one table, [shape]")
        return parse_shape(data["shape"])
    except (OSError, ValueError) as error:  # UnicodeDecodeError and TOMLDecodeError are ValueErrors
        raise CorruptFile(f"shape {path} is not valid", why=str(error), path=str(path)) from error
