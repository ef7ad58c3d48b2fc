"""`edgellm pull MODEL`: fetch a model, check it, and make it known by its short name."""

from __future__ import annotations

from typing import Annotated

import typer

from edgellm.commands.workspace import workspace
from edgellm.ui import options


def pull(
    model: Annotated[str, typer.Argument(help="A recipe's name, see `edgellm list --available`.")],
    force: Annotated[bool, typer.Option("--force", help="Fetch again although it is here.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    offline: options.Offline = False,
) -> None:
    """Fetch a model and check its sha256.

    Example: edgellm pull smollm2
    """
    from edgellm.models.pull import pull as pull_model
    from edgellm.models.recipe import find_recipe
    from edgellm.ui.console import note, print_fields, print_json
    from edgellm.ui.progress import progress
    from edgellm.ui.units import size

    here = workspace(offline=offline)
    recipe = find_recipe(model, here.recipe_directories)
    before = here.store.find(recipe.name)
    fetching = force or before is None or not before.is_whole
    if fetching and not quiet:
        note(f"{recipe.name}  {recipe.quant}  {size(recipe.file.size)}  {recipe.licence}")
    with progress(quiet=quiet or as_json) as report:
        installed = pull_model(recipe, here.store, here.settings, force=force, report=report)
    if as_json:
        print_json(installed)
        return
    print_fields(
        [
            ("model", installed.name),
            ("file", str(installed.path)),
            ("sha256", installed.sha256 + ("  ok" if fetching else "  when it was pulled")),
        ]
    )
    if fetching and not quiet:
        note(
            f"next: edgellm chat {installed.name}"
            if recipe.chat
            else f"next: edgellm run --raw {installed.name} PROMPT"
        )
