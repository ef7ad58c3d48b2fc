"""`edgellm list`: the models on this machine, its adapters, or the models that can be pulled."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from edgellm.adapters import AdapterDescription, installed_adapters, shelf
from edgellm.formats.quant_types import find_named
from edgellm.models.local.inventory import ListedModel, inventory, offered
from edgellm.models.recipe import OfferedRecipe, Recipe, load_recipes
from edgellm.ui.console import note, print_groups, print_table
from edgellm.ui.options import JsonOutput
from edgellm.ui.render import render
from edgellm.units import count, rate, size
from edgellm.workspace import workspace

# The groups of recipes: what they are for, and whether a recipe belongs there, in this order.
_GROUPS: tuple[tuple[str, Callable[[Recipe], bool]], ...] = (
    ("CHAT, TERNARY OR 1-BIT", lambda recipe: recipe.kind == "chat" and _is_ternary(recipe)),
    ("CHAT", lambda recipe: recipe.kind == "chat"),
    ("TEXT, NOT TRAINED TO CHAT", lambda recipe: recipe.kind == "completion"),
    ("EMBEDDINGS AND RERANKING", lambda recipe: True),
)
# What a narrow terminal does without; NAME, SIZE and FITS fit into 40 columns.
SPARE = ("LICENCE", "SOURCE", "USED", "SPEED", "CONTEXT", "PARAMS", "WHAT", "NEEDS", "TYPE")


def list_models(
    available: Annotated[bool, typer.Option("--available", "-a", help="What can be pulled instead.")] = False,
    lora: Annotated[
        bool, typer.Option("--lora", help="The adapters on this machine instead.", envvar="EDGELLM_LIST_LORA")
    ] = False,
    *,
    output: JsonOutput,
) -> list[ListedModel] | list[OfferedRecipe] | list[AdapterDescription]:
    """List installed models: type, size, parameters, context, the memory they need, and how fast they were.

    With --available the models that can be pulled, by what they are for and by size; sizes are estimates until they
    are here.

    \b
    Examples: edgellm list
              edgellm list --available
              edgellm list --lora
              edgellm search bonsai --offline
    """
    here = workspace()
    if lora:
        return render(output, installed_adapters(here), _print_adapters)
    if available:
        recipes = load_recipes(here.recipe_directories).values()
        return render(output, [offered(recipe.choose()) for recipe in recipes], _print_recipes)
    found = render(output, inventory(here.store, here.settings), _print_models)
    if not output.as_json and (names := shelf(here).names()):
        note(f"{len(names)} adapter{'s' if len(names) > 1 else ''}: edgellm list --lora")
    return found


def _print_recipes(recipes: list[OfferedRecipe]) -> None:
    left = sorted(recipes, key=lambda recipe: (recipe.size or math.inf, recipe.name))
    groups: list[tuple[str, list[Sequence[str]]]] = []
    for title, belongs in _GROUPS:
        groups.append((title, [_offer(recipe) for recipe in left if belongs(recipe)]))
        left = [recipe for recipe in left if not belongs(recipe)]
    headers = ("NAME", "TYPE", "SIZE", "NEEDS", "FITS", "PARAMS", "CONTEXT", "LICENCE", "WHAT")
    print_groups(headers, [group for group in groups if group[1]], right=(2, 3, 5, 6), spare=SPARE, cut=True)
    note("edgellm show NAME tells all of one: its other types, licence and source; edgellm search WORD finds some")


def _is_ternary(recipe: Recipe) -> bool:
    kind = find_named(recipe.quant)
    return "ternary" in recipe.summary.lower() or (kind is not None and kind.one_magnitude)


def _offer(recipe: OfferedRecipe) -> Sequence[str]:
    return (
        recipe.name,
        recipe.quant,
        size(recipe.size) if recipe.size else "",
        size(recipe.needed) if recipe.needed else "",
        fits(recipe.fits),
        count(recipe.parameters) if recipe.parameters else "",
        f"{recipe.context:,}" if recipe.context else "",
        recipe.licence,
        recipe.summary.partition(": ")[2] or recipe.summary,
    )


def _print_adapters(adapters: list[AdapterDescription]) -> None:
    if not adapters:
        note("no adapter is installed; edgellm pull MODEL --lora USER/REPO fetches one")
        return
    rows = [
        (each.name, each.base or "", each.architecture, str(each.rank), size(each.size), each.source or "")
        for each in adapters
    ]
    print_table(("NAME", "FOR", "ARCHITECTURE", "RANK", "SIZE", "SOURCE"), rows, right=(3, 4), spare=("SOURCE", "RANK"))
    for each in adapters:
        if each.problem:
            note(f"{each.name} cannot be used: {each.problem}")


def fits(verdict: bool | None) -> str:
    """A verdict as a cell of a table; `?` where it is not known before the model is here."""
    return {True: "yes", False: "no", None: "?"}[verdict]


def _print_models(models: list[ListedModel]) -> None:
    if models:
        print_table(
            ("NAME", "TYPE", "SIZE", "PARAMS", "CONTEXT", "NEEDS", "FITS", "SPEED", "USED", "SOURCE"),
            [_row(model) for model in models],
            right=(2, 3, 4, 5, 7),
            spare=SPARE,
        )
        for model in models:
            if model.problem:
                note(f"{model.name} cannot be used: {model.problem}")
    else:
        note("no model is installed; edgellm list --available shows what there is")


def _row(model: ListedModel) -> tuple[str, ...]:
    speed = rate(model.decode_rate) if model.decode_rate else ""
    used = model.last_used[:10] if model.last_used else ""
    if model.problem:
        return (model.name, "", size(model.size), "", "", "", "broken", speed, used, model.source)
    numbers = (count(model.parameters), f"{model.context:,}", size(model.needed), fits(model.fits))
    return (model.name, model.quant, size(model.size), *numbers, speed, used, model.source)
