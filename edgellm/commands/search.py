"""`edgellm search QUERY`: recipes that match, and GGUF models of the Hub when there is a network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import typer

from edgellm.errors import NetworkError
from edgellm.models.hub.client import FoundRepository
from edgellm.models.hub.retry import Patience
from edgellm.models.recipe import Recipe, load_recipes, matches
from edgellm.ui import options
from edgellm.ui.console import note, print_line, print_table
from edgellm.ui.options import QuietOutput
from edgellm.ui.progress import progress
from edgellm.ui.render import render
from edgellm.units import count
from edgellm.workspace import workspace


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Recipes and repositories that match; `problem` says why the Hub was not asked, null when it was."""

    recipes: list[Recipe]
    hub: list[FoundRepository]
    problem: str | None


def search(
    query: Annotated[list[str], typer.Argument(help="Words of a name, a language, a licence, a type.")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="Results from the Hub at most.")] = 20,
    offline: options.Offline = False,
    *,
    output: QuietOutput,
) -> SearchResult:
    """Search recipes, and the Hugging Face Hub when online.

    \b
    Examples: edgellm search qwen
              edgellm search falcon ternary --offline
    """
    here = workspace(offline=offline)
    recipes = [recipe for recipe in load_recipes(here.recipe_directories).values() if matches(recipe, query)]
    found: list[FoundRepository] = []
    problem = "" if not here.settings.offline else "offline: only recipes were searched"
    if not problem:
        try:
            with progress(quiet=output.silent) as report:
                hub = replace(here.hub, patience=Patience(pauses=(1,)))
                if not hub.is_reachable():
                    raise NetworkError(f"{hub.host} cannot be reached")
                found = hub.search(" ".join(query), limit=limit, report=report)
        except NetworkError as error:
            problem = f"only recipes were searched: {error.what}"
    result = SearchResult(recipes, found, problem or None)
    render(output, result, _print)
    if not output.silent:
        if problem:
            note(problem)
        first = recipes[0].name if recipes else found[0].repo if found else ""
        note(f"next: edgellm pull {first} --dry-run" if first else f"nothing matches {' '.join(query)!r}")
    return result


def _print(result: SearchResult) -> None:
    recipes = [
        (r.name, r.quant, count(r.parameters) if r.parameters else "", r.licence, r.summary) for r in result.recipes
    ]
    if recipes:
        print_table(("RECIPE", "TYPE", "PARAMS", "LICENCE", "WHAT"), recipes, right=(2,), spare=("LICENCE",), cut=True)
    if recipes and result.hub:
        print_line("")
    if result.hub:
        rows = [
            (entry.repo, f"{entry.downloads:,}", f"{entry.likes:,}", entry.updated, "gated" if entry.gated else "")
            for entry in result.hub
        ]
        print_table(("ON THE HUB", "DOWNLOADS", "LIKES", "UPDATED", ""), rows, right=(1, 2), spare=("LIKES", "UPDATED"))
