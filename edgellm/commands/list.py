"""`edgellm list`: the models on this machine, or those that can be pulled."""

from __future__ import annotations

from typing import Annotated

import typer

from edgellm.commands.workspace import workspace
from edgellm.ui import options


def list_models(
    available: Annotated[bool, typer.Option("--available", "-a", help="What can be pulled instead.")] = False,
    as_json: options.Json = False,
) -> None:
    """List installed models.

    Example: edgellm list --available
    """
    from edgellm.ui.console import note, print_json, print_table
    from edgellm.ui.units import count, size

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
                ", ".join(r.choices),
                count(r.parameters) if r.parameters else "",
                f"{r.context:,}" if r.context else "",
                r.licence,
                r.summary,
            )
            for r in recipes
        ]
        print_table(("NAME", "TYPE", "PARAMS", "CONTEXT", "LICENCE", "WHAT"), rows, right=(2, 3))
        return
    models = here.store.list()
    if as_json:
        print_json(models)
    elif models:
        rows_installed = [(m.name, size(m.size), m.source, m.installed[:10]) for m in models]
        print_table(("NAME", "SIZE", "SOURCE", "INSTALLED"), rows_installed, right=(1,))
    else:
        note("no model is installed; edgellm list --available shows what there is")
