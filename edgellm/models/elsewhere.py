"""The outline of a model that is not on this machine yet: from its header or its config.json on the Hub, or its recipe.

    outline = outline_of_plan(make_plan(choice, hub), hub)

A few megabytes at most are read. Without a network a recipe's own numbers have to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from edgellm.errors import CorruptFile
from edgellm.models.fit import Ranges, read_remote_outline
from edgellm.models.hub import Hub, RangeReader, RemoteFile
from edgellm.models.hub_cache import HubCache
from edgellm.models.outline import Outline
from edgellm.models.planned import MAX_CONFIG_BYTES, Sizes, planned
from edgellm.models.pull import PullPlan
from edgellm.models.recipe import Choice, Recipe
from edgellm.progress import Progress, Report, silent

DEFAULT_QUANT = "Q4_K_M"


def outline_of_plan(plan: PullPlan, hub: Hub, *, report: Report = silent) -> Outline | None:
    """The outline of what a pull will bring, or make; None where neither the Hub nor the recipe tells enough.

    Raises:
        ModelNotFound, AccessDenied, NetworkError: the Hub does not answer.
        CorruptFile, UnsupportedModel: what it answers makes no sense, or is nothing the engine knows.
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
    return planned(Sizes.of_config(data, name=plan.name), _made(plan.choice, plan.quant))


def outline_of_recipe(choice: Choice) -> Outline | None:
    """What a recipe itself tells; None when it has no shape."""
    shape = choice.recipe.shape if choice.recipe else None
    if shape is None:
        return None
    outline = planned(Sizes(name=choice.name, **shape.model_dump(exclude={"rope_base"})), _made(choice, choice.quant))
    known = choice.file.size if choice.file and choice.convert is None else None
    return outline if known is None else replace(outline, n_bytes=known)


def offers(recipes: Iterable[Recipe], *, instead_of: str) -> list[Outline]:
    """What may be offered instead of a recipe's model: its other quantizations, then other chat models.

    Those that tell their shape, the largest first: it is likely the best.
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
    return _LocalRanges(cached) if cached.is_file() else RangeReader(hub, file, report)


def _made(choice: Choice, quant: str | None) -> str:
    """The type that the weights will have here."""
    made = (choice.convert.quantize or choice.convert.outtype) if choice.convert else None
    return made or quant or DEFAULT_QUANT


class _LocalRanges:
    """Parts of a file in the cache."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer at the end."""
        with self._path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
