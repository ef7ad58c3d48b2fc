"""`edgellm rm MODEL...`: remove models and adapters from this machine."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from edgellm.adapters import stored
from edgellm.errors import UsageError
from edgellm.models.local.registration import SOURCE as IMPORTED
from edgellm.models.local.removal import Removed, remove
from edgellm.models.local.store import InstalledModel
from edgellm.ui.console import note
from edgellm.ui.model_names import installed_names
from edgellm.ui.options import QuietOutput
from edgellm.ui.progress import progress
from edgellm.ui.render import render
from edgellm.units import size
from edgellm.workspace import workspace


def rm(
    models: Annotated[
        list[str],
        typer.Argument(help="Installed models or adapters, see `edgellm list`.", autocompletion=installed_names),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    *,
    output: QuietOutput,
) -> list[Removed]:
    """Remove models and adapters from this machine.

    Files are deleted in edgellm's store and in the Hugging Face cache, unless another model uses them. Imported files
    stay; only their name is removed.

    Example: edgellm rm smollm2
    """
    here = workspace()
    found = [stored(here, name) for name in dict.fromkeys(models)]
    if not yes and not output.as_json:
        if not sys.stdin.isatty():
            raise UsageError(
                "rm asks before it removes, and there is no terminal to ask on",
                hint=f"edgellm rm --yes {shlex.join(models)}",
            )
        typer.confirm(f"Remove {', '.join(_described(model) for _, model in found)}?", abort=True, err=True)
    with progress(quiet=output.silent) as report:
        removed = [
            remove(
                store,
                model,
                here.hub_cache,
                tunings=here.settings.tunings,
                packed=here.packed,
                prompts=here.all_prompts,
                report=report,
            )
            for store, model in found
        ]
    return render(output, removed, _print)


def _print(removed: list[Removed]) -> None:
    for each in removed:
        freed = f", {size(each.freed)} freed" if each.freed or not each.kept else ""
        kept = f"; {', '.join(map(str, each.kept))} stays" if each.kept else ""
        note(f"removed {each.name}{freed}{kept}")


def _described(model: InstalledModel) -> str:
    if model.source == IMPORTED:
        return f"the name {model.name} (its file {model.path} stays)"
    return f"{model.name} ({size(sum(part.size for part in model.files))})"
