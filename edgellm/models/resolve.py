"""Resolves the name that a user types to a model: a path, an installed model, a recipe, or a model on the Hub.

resolve("qwen2.5-7b:Q8_0", store, recipe_directories)  ->  InstalledModel, Path, or the Choice to pull
parse_reference("Qwen/Qwen2.5-7B-Instruct-GGUF:Q8_0").quant  ->  "Q8_0"
parse_reference("hf://user/repo@v1/model.gguf").file.name    ->  "model.gguf"
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from edgellm.errors import ModelNotFound, UsageError
from edgellm.models.hub.files import file_label
from edgellm.models.known_names import repository
from edgellm.models.local.store import LATEST, InstalledModel, Store
from edgellm.models.recipe import Choice, HubSource, ModelFile, Recipe, find_recipe, load_recipes, recipe_names
from edgellm.suggest import did_you_mean

_REPO = r"(?P<repo>[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*)"
# A quantization, or the name of a file, which may have any characters.
_LABEL = r"(?::(?P<label>[^\s/:?#][^/:?#]*))?"
_SHORT = re.compile(rf"{_REPO}(?:@(?P<revision>[^/:]+))?{_LABEL}")
_URL = re.compile(rf"hf://(?:models/)?{_REPO}(?:@(?P<revision>[^/:]+))?(?:/(?P<file>[^:?#]+))?{_LABEL}")
# The path of a page, as it stands in the address.
_PAGE = re.compile(
    rf"/{_REPO}{_LABEL}(?:/(?P<kind>resolve|blob|tree|raw)/(?P<revision>[^/]+)(?:/(?P<file>.+))?|/discussions.*|/commits.*)?/?"
)
_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co", "www.hf.co", "hf-mirror.com"})
_FORMS = "hf://user/repo, hf://user/repo@revision/file.gguf or user/repo:Q4_K_M"
# What people add to a name that says nothing about which model it is.
_NOISE = frozenset({"instruct", "chat", "it", "gguf", "latest"})


def resolve(name: str, store: Store, recipe_directories: Sequence[Path]) -> Path | InstalledModel | Choice:
    """Return what `name` refers to; installed models precede recipes, and files precede repositories on the Hub.

    Raises:
        ModelNotFound: nothing has this name; the error suggests the closest name.
    """
    if _is_path(name):
        return _existing(name)
    if _is_file(Path(name)) and os.sep in name:
        return Path(name)
    if installed := store.find(name):
        return installed
    choice = find_choice(name, recipe_directories)
    if choice is not None and (installed := store.find(choice.name)):
        return installed
    if choice is not None:
        return choice
    if _is_file(Path(name)):
        return Path(name)
    raise not_found(name, [*store.names(), *recipe_names(recipe_directories)])


def find_choice(name: str, recipe_directories: Sequence[Path]) -> Choice | None:
    """Return what a name would pull: a recipe, a variant of one, or a repository on the Hub; None for nothing.

    A recipe is also found by its aliases, in other letters, and as Ollama writes it: `qwen2.5:0.5b-instruct-q8_0`.

    Raises:
        ModelNotFound: the recipe has no such variant.
    """
    short, _, label = name.removesuffix(LATEST).partition(":")
    recipe = find_recipe(short, recipe_directories) if short in recipe_names(recipe_directories) else None
    if recipe is not None and (not label or recipe.has(label)):
        return recipe.choose(label or None)
    similar = parse_reference(name) or _similar(name, recipe_directories)
    return similar or (recipe.choose(label) if recipe else None)


def _similar(name: str, recipe_directories: Sequence[Path]) -> Choice | None:
    """Return what another spelling of a recipe's name, or of one of its aliases, stands for."""
    words = re.split(r"[:-]", name.lower())
    recipes = load_recipes(recipe_directories)
    spellings = {key.lower(): recipe for recipe in recipes.values() for key in (recipe.name, *recipe.aliases)}
    for n_words in range(len(words), 0, -1):
        recipe = spellings.get("-".join(words[:n_words]))
        if recipe is None:
            continue
        label = "-".join(word for word in words[n_words:] if word not in _NOISE)
        return recipe.choose(label or None) if not label or recipe.has(label) else None
    return None


def parse_reference(text: str) -> Choice | None:
    """What `user/repo[:QUANT]`, `hf://...` or a browser's address names on the Hub; None for any other text.

    Raises:
        UsageError: it starts like an address but is not valid.
    """
    text = text.strip().removesuffix(LATEST)
    is_address = _is_address(text)
    match = _match_address(text) if is_address else _SHORT.fullmatch(text)
    if match is None:
        if is_address:
            raise _no_address(text)
        return None
    parts = match.groupdict()
    repo, label, name = parts["repo"], parts["label"], (parts.get("file") or "").strip("/")
    if is_address:
        label, name = label and unquote(label), unquote(name)
    if parts.get("kind") == "tree" and name and not name.endswith(".gguf"):
        label, name = label or PurePosixPath(name).name, ""  # a directory, which holds one quantization
    try:
        source = HubSource(kind="hub", repo=repo, revision=unquote(parts.get("revision") or "main"))
        file = ModelFile(name=name) if name else None
    except ValueError as error:
        raise _no_address(text) from error
    label = label or (file_label(name) if name else None)
    return Choice(f"{repo}:{label}" if label else repo, source, None if name else label, file)


def _is_address(text: str) -> bool:
    """Whether a text can only be an address, as `hf.co/user/repo` is without a scheme, too."""
    lowered = text.lower()
    return lowered.startswith(("hf://", "http://", "https://")) or lowered.partition("/")[0] in _HOSTS


def _match_address(text: str) -> re.Match[str] | None:
    """The parts of an address; of a page, whatever follows ? or # in it is for the browser."""
    if text[:5].lower() == "hf://":
        return _URL.fullmatch("hf://" + text[5:])
    try:
        page = urlsplit(text if "://" in text else f"https://{text}")
        host = page.netloc.rpartition("@")[2].lower()
        mirror = urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc.lower()
    except ValueError:
        return None
    return _PAGE.fullmatch(page.path) if host.removesuffix(":443") in _HOSTS or host == mirror else None


def _no_address(text: str) -> UsageError:
    return UsageError(f"{text[:200]} is not the address of a model on the Hub", hint=_FORMS)


def recipe_of(model: InstalledModel, recipe_directories: Sequence[Path]) -> Recipe | None:
    """Return the recipe of an installed model: that of its name, or of the one that it was fine-tuned from; else the
    one that knows its file by its hash.
    """
    for name in (model.name, model.base):
        choice = _recipe_named(name, recipe_directories) if name else None
        if choice is not None:
            return choice.recipe
    known = (recipe for recipe in load_recipes(recipe_directories).values() if model.sha256 in recipe.hashes)
    return next(known, None)


def _recipe_named(name: str, recipe_directories: Sequence[Path]) -> Choice | None:
    short, _, label = name.partition(":")
    if short not in recipe_names(recipe_directories):
        return None
    recipe = find_recipe(short, recipe_directories)
    return recipe.choose(label or None) if not label or recipe.has(label) else None


def not_found(name: str, known: Sequence[str]) -> ModelNotFound:
    """Return the error for an unknown name, with the name that it may have on the Hub, or the closest known name."""
    guess = repository(name) or did_you_mean(name.lower(), known)
    return ModelNotFound(
        f"there is no model {name if len(name) <= 60 else name[:57] + '...'!r}",
        why=f"did you mean {guess}?" if guess else "it is not an installed model, a recipe or a file",
        hint=f"edgellm pull {guess}" if guess else f"edgellm list --available, or edgellm search {_words(name)}",
        name=name,
        suggestion=guess,
    )


def _words(name: str) -> str:
    """The words of a name as a search on the Hub finds them: gemma3:4b as `gemma 3 4b`."""
    words = re.findall(r"[a-z]{3,}|[a-z\d.]+", name[:60].lower())
    return " ".join(words) or "WORD"


def _existing(name: str) -> Path:
    """Return the path of an existing file; raise `ModelNotFound` when it is not one."""
    path = Path(os.path.expanduser(name))  # noqa: PTH111, Path's own raises for unknown users
    if _is_file(path):
        return path
    what = "is a directory, not a model file" if path.is_dir() else "is not a readable file"
    raise ModelNotFound(f"{name[:200]} {what}", hint="edgellm list", path=name[:200])


def _is_file(path: Path) -> bool:
    """Whether it is a regular file; False also for a name that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_path(name: str) -> bool:
    """Whether a name can only be a path; `user/repo` may also be on the Hub."""
    if _is_address(name.strip()):
        return False
    if name in (".", "..") or name.startswith((os.sep, "~", f".{os.sep}", f"..{os.sep}")) or name.endswith(".gguf"):
        return True
    return os.sep in name and parse_reference(name) is None
