"""What `edgellm list` shows: the installed models, and those that can be pulled, with what is known of each.

inventory(store, settings)[0].needed
offered(recipe.choose()).fits
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgellm.machine import memory
from edgellm.models.local.cards import read_cards
from edgellm.models.local.store import Store
from edgellm.models.local.usage import read_usage
from edgellm.models.recipe import Choice, OfferedRecipe
from edgellm.settings import Settings


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One installed model; sizes are bytes, `decode_rate` is tokens per second when it was last used.

    `needed` is the memory at the default context; `problem` says why a file cannot be used, and is null otherwise.
    """

    name: str
    path: Path
    size: int
    sha256: str
    source: str
    installed: str
    architecture: str
    quant: str
    parameters: int
    context: int
    needed: int
    fits: bool
    decode_rate: float | None
    last_used: str | None
    problem: str | None


def offered(choice: Choice) -> OfferedRecipe:
    """The recipe of a choice with what its model needs here; never asks the network."""
    from edgellm.models.fit.memory import RunPlan, choose_context, estimate
    from edgellm.models.fit.remote_outline import outline_of_recipe

    if choice.recipe is None:
        raise ValueError(f"{choice.name} has no recipe")
    recipe = choice.recipe.model_dump(exclude_none=True)
    outline = outline_of_recipe(choice)
    if outline is None:
        return OfferedRecipe(**recipe)
    needed = estimate(outline, RunPlan(choose_context(outline.n_ctx_train, None))).total
    fits = needed <= memory.available()
    recipe |= {"parameters": recipe.get("parameters", outline.n_params), "context": outline.n_ctx_train}
    return OfferedRecipe(**recipe, size=outline.n_bytes, needed=needed, fits=fits)


def inventory(store: Store, settings: Settings) -> list[ListedModel]:
    """All installed models, by name."""
    models = store.list()
    if not models:
        return []
    cards, usage, available = read_cards(models, settings.cards), read_usage(settings.usage), memory.available()
    found = []
    for model in models:
        card, used = cards[model.name], usage.get(model.path)
        found.append(
            ListedModel(
                name=model.name,
                path=model.path,
                size=sum(part.size for part in model.files),
                sha256=model.sha256,
                source=model.source,
                installed=model.installed,
                architecture=card.architecture,
                quant=card.quant,
                parameters=card.n_params,
                context=card.n_ctx_train,
                needed=card.needed,
                fits=not card.problem and card.needed <= available,
                decode_rate=used.decode_rate if used else None,
                last_used=used.last_used if used else None,
                problem=card.problem or (None if model.is_whole else "its size is not what was installed"),
            )
        )
    return found
