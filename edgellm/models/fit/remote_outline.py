"""Reads the outline of a model that is not on this machine, from its header or config.json on the Hub, or its recipe.

    outline = outline_of_plan(make_plan(choice, hub), hub)

It reads a few megabytes at most. Without a network, it uses the numbers in the recipe.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgellm.errors import CorruptFile
from edgellm.models.fit.outline import Outline
from edgellm.models.fit.planned_outline import MAX_CONFIG_BYTES, Dimensions, planned
from edgellm.models.fit.verdict import Ranges, read_remote_outline
from edgellm.models.hub.cache import HubCache
from edgellm.models.hub.files import RemoteFile
from edgellm.models.recipe import Choice, ConvertOptions, Recipe
from edgellm.progress import Progress, Report, silent

if TYPE_CHECKING:
    from edgellm.models.hub.client import Hub
    from edgellm.models.pull import PullPlan

DEFAULT_QUANT = "Q4_K_M"


def outline_of_plan(plan: PullPlan, hub: Hub, *, report: Report = silent) -> Outline | None:
    """Return the outline of the model that a pull fetches or makes; None when Hub and recipe do not say enough.

    Raises:
        ModelNotFound, AccessDenied, NetworkError: the Hub does not provide the file.
        CorruptFile, UnsupportedModel: the file is invalid, or not supported by the engine.
    """
    if not plan.files:
        return outline_of_recipe(plan.choice)
    report(Progress(f"reading the header of {plan.name}"))
    if plan.convert is None:
        return read_remote_outline(((file.name, _ranges(file, hub, report)) for file in plan.files), plan.name)
    config = next(file for file in plan.files if file.name == "config.json")
    if config.size > MAX_CONFIG_BYTES:
        raise CorruptFile(f"config.json of {config.repo} is not valid", why=f"it has {config.size:,} bytes")
    data = _ranges(config, hub, report).read(0, config.size)
    return _planned(Dimensions.of_config(data, name=plan.name), plan.choice, plan.quant)


def outline_of_recipe(choice: Choice) -> Outline | None:
    """Return the outline that a recipe describes; None when it has no shape."""
    shape = choice.recipe.shape if choice.recipe else None
    if shape is None:
        return None
    sizes = shape.model_dump(exclude={"rope_base", "head_type", "sliding_window"})
    outline = _planned(Dimensions(name=choice.name, **sizes), choice, choice.quant)
    known = choice.file.size if choice.file and choice.convert is None else None
    return outline if known is None else replace(outline, n_bytes=known)


def offers(recipes: Iterable[Recipe], *, instead_of: str) -> list[Outline]:
    """Return alternatives to a recipe's model: its other quantizations, then other chat models.

    Only models with a known shape are listed, largest first, because the largest is likely the best.
    """
    name, _, label = instead_of.partition(":")
    siblings, others = [], []
    for recipe in recipes:
        if recipe.name == name:
            here = (label or recipe.quant).lower()
            siblings += [recipe.choose(each) for each in recipe.choices if each.lower() != here]
        elif recipe.chat:
            others.append(recipe.choose())
    return [*_by_size(siblings), *_by_size(others)]


def _by_size(choices: Iterable[Choice]) -> list[Outline]:
    known = (outline for choice in choices if (outline := outline_of_recipe(choice)) is not None)
    return sorted(known, key=lambda outline: -outline.n_bytes)


def _ranges(file: RemoteFile, hub: Hub, report: Report) -> Ranges:
    cached = HubCache(hub.cache).snapshot(file)
    if cached.is_file():
        return _LocalRanges(cached)
    from edgellm.models.hub.client import RangeReader

    return RangeReader(hub, file, report)


def _planned(sizes: Dimensions, choice: Choice, quant: str | None) -> Outline:
    """Return the outline of the file that a choice becomes on this machine, in the types that its recipe asks for."""
    convert = choice.convert or ConvertOptions()
    published = choice.recipe.shape.head_type if choice.recipe and choice.recipe.shape else None
    return planned(sizes, convert.quantize or convert.outtype or quant or DEFAULT_QUANT, convert.head, published)


class _LocalRanges:
    """Reads parts of a file in the cache."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, or fewer at the end of the file."""
        with self._path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
