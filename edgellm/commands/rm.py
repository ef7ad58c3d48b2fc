"""`edgellm rm MODEL...`: remove models from this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from edgellm.commands.workspace import workspace
from edgellm.ui import options


def rm(
    models: Annotated[list[str], typer.Argument(help="Installed models, see `edgellm list`.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: options.Json = False,
) -> None:
    """Remove models from this machine.

    Files outside edgellm's own store are only forgotten.

    Example: edgellm rm smollm2
    """
    from edgellm.errors import UsageError
    from edgellm.ui.console import note, print_json
    from edgellm.ui.units import size

    here = workspace()
    found = [here.store.get(name) for name in dict.fromkeys(models)]
    if not yes and not as_json:
        import sys

        if not sys.stdin.isatty():
            raise UsageError(
                "rm asks before it removes, and there is no terminal to ask on",
                hint=f"edgellm rm --yes {' '.join(models)}",
            )
        typer.confirm(f"Remove {', '.join(f'{m.name} ({size(m.size)})' for m in found)}?", abort=True, err=True)
    freed = {model.name: here.store.remove(model) for model in found}
    if as_json:
        print_json([{"name": name, "freed": n_bytes} for name, n_bytes in freed.items()])
        return
    for name, n_bytes in freed.items():
        note(f"removed {name}, {size(n_bytes)} freed")
