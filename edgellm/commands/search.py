"""`edgellm search QUERY`: recipes that match, and GGUF models of the Hub when there is a network."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from edgellm.commands.workspace import workspace
from edgellm.ui import options


def search(
    query: Annotated[list[str], typer.Argument(help="Words of a name, a language, a licence, a type.")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="Results from the Hub at most.")] = 20,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    offline: options.Offline = False,
) -> None:
    """Search recipes, and the Hugging Face Hub when online.

    \b
    Examples: edgellm search qwen
              edgellm search falcon ternary --offline
    """
    from edgellm.errors import NetworkError
    from edgellm.models.hub import Found
    from edgellm.models.patience import Patience
    from edgellm.models.recipe import load_recipes, matches
    from edgellm.ui.console import note, print_json, print_table
    from edgellm.ui.progress import progress
    from edgellm.ui.units import count

    here = workspace(offline=offline)
    recipes = [recipe for recipe in load_recipes(here.recipe_directories).values() if matches(recipe, query)]
    found: list[Found] = []
    problem = "" if not here.settings.offline else "offline: only recipes were searched"
    if not problem:
        try:
            with progress(quiet=quiet or as_json) as report:
                hub = replace(here.hub, patience=Patience(pauses=(1,)))
                found = hub.search(" ".join(query), limit=limit, report=report)
        except NetworkError as error:
            problem = f"only recipes were searched: {error.what}"
    if as_json:
        entries = [recipe.model_dump(mode="json", exclude_none=True) for recipe in recipes]
        print_json({"recipes": entries, "hub": found, "problem": problem or None})
        return
    if recipes:
        rows = [(r.name, r.quant, count(r.parameters) if r.parameters else "", r.licence, r.summary) for r in recipes]
        print_table(("RECIPE", "TYPE", "PARAMS", "LICENCE", "WHAT"), rows, right=(2,))
    if recipes and found:
        typer.echo()
    if found:
        hub_rows = [
            (entry.repo, f"{entry.downloads:,}", f"{entry.likes:,}", entry.updated, "gated" if entry.gated else "")
            for entry in found
        ]
        print_table(("ON THE HUB", "DOWNLOADS", "LIKES", "UPDATED", ""), hub_rows, right=(1, 2))
    if problem and not quiet:
        note(problem)
    if not quiet:
        first = recipes[0].name if recipes else found[0].repo if found else ""
        note(f"next: edgellm pull {first} --dry-run" if first else f"nothing matches {' '.join(query)!r}")
