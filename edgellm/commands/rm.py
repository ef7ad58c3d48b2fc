"""`edgellm rm MODEL...`: remove models from this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from edgellm.commands.completion import installed_names
from edgellm.commands.workspace import workspace
from edgellm.ui import options


def rm(
    models: Annotated[
        list[str], typer.Argument(help="Installed models, see `edgellm list`.", autocompletion=installed_names)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Remove models from this machine.

    Only files that no other model uses are deleted, in edgellm's store and in the Hugging Face cache; imported files
    are only forgotten.

    Example: edgellm rm smollm2
    """
    import sys

    from edgellm.errors import UsageError
    from edgellm.models.removing import remove
    from edgellm.ui.console import note, print_json
    from edgellm.ui.progress import progress
    from edgellm.ui.units import size

    here = workspace()
    found = [here.store.get(name) for name in dict.fromkeys(models)]
    if not yes and not as_json:
        if not sys.stdin.isatty():
            raise UsageError(
                "rm asks before it removes, and there is no terminal to ask on",
                hint=f"edgellm rm --yes {' '.join(models)}",
            )
        sizes = ", ".join(f"{model.name} ({size(sum(part.size for part in model.files))})" for model in found)
        typer.confirm(f"Remove {sizes}?", abort=True, err=True)
    with progress(quiet=quiet or as_json) as report:
        removed = [remove(here.store, model, here.hub_cache, report=report) for model in found]
    if as_json:
        print_json(removed)
        return
    for each in removed:
        kept = f"; {', '.join(map(str, each.kept))} stays" if each.kept else ""
        note(f"removed {each.name}, {size(each.freed)} freed{kept}")
