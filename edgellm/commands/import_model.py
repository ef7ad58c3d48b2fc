"""`edgellm import PATH`: give a model file on this machine a name, where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgellm.models.local.description import describe, first_use
from edgellm.models.local.registration import register
from edgellm.models.local.store import InstalledModel
from edgellm.models.resolve import recipe_of
from edgellm.ui.console import note, print_fields
from edgellm.ui.options import QuietOutput
from edgellm.ui.progress import progress
from edgellm.ui.render import render
from edgellm.workspace import workspace


def import_model(
    path: Annotated[Path, typer.Argument(help="A GGUF file, or the first part of one.")],
    name: Annotated[str | None, typer.Option("--name", help="The name to use. [default: the file's name]")] = None,
    *,
    output: QuietOutput,
) -> InstalledModel:
    """Give a GGUF file a name. It stays where it is; nothing is copied.

    Example: edgellm import /data/qwen2.5-3b-q4_k_m.gguf --name qwen
    """
    here = workspace()
    with progress(quiet=output.silent) as report:
        model = register(path, here.store, name=name, report=report)
    recipe = recipe_of(model, here.recipe_directories)
    render(output, model, _print)
    if not output.silent:
        if recipe is not None:
            note(f"it is a model of the recipe {recipe.name}, whose template and settings it gets")
        note(f"next: {first_use(describe(model.name, model, here.settings.usage, recipe).kind, model.name)}")
    return model


def _print(model: InstalledModel) -> None:
    print_fields([("model", model.name), ("file", str(model.path)), ("sha256", model.sha256)])
