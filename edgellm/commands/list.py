"""`edgellm list`: the models on this machine, or those that can be pulled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgellm.commands.workspace import Workspace, workspace
from edgellm.ui import options

# Variants of a recipe in the table.
SHOWN = 3


def list_models(
    available: Annotated[bool, typer.Option("--available", "-a", help="What can be pulled instead.")] = False,
    as_json: options.Json = False,
) -> None:
    """List installed models: type, size, parameters, context, the memory they need, and how fast they were.

    \b
    Examples: edgellm list
              edgellm list --available
    """
    from edgellm.ui.console import note, print_json, print_table
    from edgellm.ui.units import count

    here = workspace()
    if available:
        from edgellm.models.recipe import load_recipes

        recipes = list(load_recipes(here.recipe_directories).values())
        if as_json:
            print_json([recipe.model_dump(mode="json", exclude_none=True) for recipe in recipes])
            return
        rows = [
            (
                r.name,
                ", ".join(r.choices[:SHOWN]) + (", ..." if len(r.choices) > SHOWN else ""),
                count(r.parameters) if r.parameters else "",
                f"{r.context:,}" if r.context else "",
                r.licence,
                r.summary,
            )
            for r in recipes
        ]
        print_table(("NAME", "TYPE", "PARAMS", "CONTEXT", "LICENCE", "WHAT"), rows, right=(2, 3))
        return
    models = listed(here)
    if as_json:
        print_json(models)
    elif models:
        print_table(
            ("NAME", "TYPE", "SIZE", "PARAMS", "CONTEXT", "NEEDS", "FITS", "SPEED", "USED", "SOURCE"),
            [_row(model) for model in models],
            right=(2, 3, 4, 5, 7),
        )
    else:
        note("no model is installed; edgellm list --available shows what there is")


@dataclass(frozen=True, slots=True)
class Listed:
    """One installed model as `list` shows it; sizes are bytes, `decode_rate` tokens per second when last used.

    `needed` is the memory at the default context; `problem` says why a file cannot be used.
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
    problem: str


def listed(here: Workspace) -> list[Listed]:
    """All installed models with what is known of them."""
    from edgellm.machine import memory
    from edgellm.models.cards import read_cards
    from edgellm.models.usage import read_usage

    models = here.store.list()
    if not models:
        return []
    cards, usage, available = (
        read_cards(models, here.settings.cards),
        read_usage(here.settings.usage),
        memory.available(),
    )
    found = []
    for model in models:
        card, used = cards[model.name], usage.get(model.path)
        found.append(
            Listed(
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
                problem=card.problem or ("" if model.is_whole else "its size is not what was installed"),
            )
        )
    return found


def _row(model: Listed) -> tuple[str, ...]:
    from edgellm.ui.units import count, rate, size

    speed = rate(model.decode_rate) if model.decode_rate else ""
    used = model.last_used[:10] if model.last_used else ""
    if model.problem:
        return (model.name, "", size(model.size), "", "", "", "broken", speed, used, model.problem)
    numbers = (count(model.parameters), f"{model.context:,}", size(model.needed), "yes" if model.fits else "no")
    return (model.name, model.quant, size(model.size), *numbers, speed, used, model.source)
