"""The outline of a model that is not on this machine: from its header or its config.json on the Hub, or its recipe.

    outline = outline_elsewhere(recipe.choose("Q4_K_M"), Hub.from_environment())

A few megabytes at most are read. Without a network a recipe's own numbers have to do.
"""

from __future__ import annotations

from dataclasses import replace

from edgellm.errors import CorruptFile, NetworkError
from edgellm.formats.gguf_split import part_names
from edgellm.models.fit import read_remote_outline
from edgellm.models.hub import Hub
from edgellm.models.hub_files import choose_gguf
from edgellm.models.outline import Outline
from edgellm.models.planned import MAX_CONFIG_BYTES, Sizes, planned
from edgellm.models.recipe import Choice, HubSource, Recipe
from edgellm.progress import Progress, Report, silent

DEFAULT_QUANT = "Q4_K_M"


def outline_elsewhere(choice: Choice, hub: Hub, *, report: Report = silent) -> Outline:
    """The outline of what a pull would bring, or make.

    Raises:
        ModelNotFound, AccessDenied, NetworkError: the Hub does not tell, and no recipe does.
        CorruptFile, UnsupportedModel: what it tells makes no sense, or nothing the engine knows.
    """
    source = choice.source
    if not isinstance(source, HubSource):
        return outline_of_recipe(choice)
    report(Progress(f"reading the header of {choice.name}"))
    try:
        if choice.convert is not None:
            return _from_config(choice, source, hub, report)
        return _from_header(choice, source, hub, report)
    except NetworkError:
        if choice.recipe is None or choice.recipe.shape is None:
            raise
        return outline_of_recipe(choice)


def outline_of_recipe(choice: Choice) -> Outline:
    """What a recipe itself tells; CorruptFile when it has no shape."""
    shape = choice.recipe.shape if choice.recipe else None
    if shape is None:
        raise CorruptFile(f"the recipe of {choice.name} tells no shape", why="its memory cannot be estimated offline")
    sizes = Sizes(name=choice.name, **shape.model_dump(exclude={"rope_base"}))
    outline = planned(sizes, _target(choice))
    known = choice.file.size if choice.file else None
    return outline if known is None else replace(outline, n_bytes=known)


def offers(recipes: dict[str, Recipe], *, without: str) -> list[Outline]:
    """The outlines of all recipes that tell their shape, chat models only: what may be offered instead."""
    known = [recipe for recipe in recipes.values() if recipe.shape and recipe.chat and recipe.name != without]
    return [outline_of_recipe(recipe.choose()) for recipe in known]


def _from_header(choice: Choice, source: HubSource, hub: Hub, report: Report) -> Outline:
    first = choice.file.name if choice.file else None
    if first is None:
        files = hub.repository(source.repo, source.revision, report=report).files
        found = choose_gguf(files, choice.quant, repo=source.repo)
        if found is None:
            return _from_config(choice, source, hub, report)
        first = found.files[0]
    directory, _, name = first.rpartition("/")
    names = [f"{directory}/{part}" if directory else part for part in part_names(name)]
    opened = ((part, hub.open_ranges(source.repo, part, source.revision, report=report)) for part in names)
    return read_remote_outline(opened, choice.name)


def _from_config(choice: Choice, source: HubSource, hub: Hub, report: Report) -> Outline:
    ranges = hub.open_ranges(source.repo, "config.json", source.revision, report=report)
    if ranges.size > MAX_CONFIG_BYTES:
        raise CorruptFile(f"config.json of {source.repo} is not valid", why=f"it has {ranges.size:,} bytes")
    return planned(Sizes.of_config(ranges.read(0, ranges.size), name=choice.name), _target(choice))


def _target(choice: Choice) -> str:
    """The type that the weights will have here."""
    convert = choice.convert
    made = (convert.quantize or convert.outtype) if convert else None
    return made or choice.quant or DEFAULT_QUANT
