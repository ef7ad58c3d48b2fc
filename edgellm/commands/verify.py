"""`edgellm verify [MODEL...]`: hash the files of installed models again."""

from __future__ import annotations

from typing import Annotated

import typer

from edgellm.commands.completion import installed_names
from edgellm.commands.workspace import workspace
from edgellm.ui import options

EXIT_CORRUPT = 6


def verify(
    models: Annotated[
        list[str] | None, typer.Argument(help="Installed models. [default: all]", autocompletion=installed_names)
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check that the files of installed models are still what they were, without the network.

    Exit code 6 when one is not.

    \b
    Examples: edgellm verify
              edgellm verify smollm2 --json
    """
    from edgellm.models.registering import SOURCE as IMPORTED
    from edgellm.models.verifying import verify as verify_models
    from edgellm.ui.console import note, print_json, print_line
    from edgellm.ui.progress import progress

    here = workspace()
    found = [here.store.get(name) for name in dict.fromkeys(models)] if models else here.store.all()
    with progress(quiet=quiet or as_json) as report:
        checked = list(verify_models(found, report=report))
    if as_json:
        print_json(checked)
    else:
        for each in checked:
            print_line(f"{'ok     ' if each.ok else 'CORRUPT'}  {each.name}  {each.path}  {each.problem}".rstrip())
        if not found:
            note("no model is installed")
    bad = {each.name for each in checked if not each.ok}
    if bad and not as_json:
        for model in found:
            if model.name in bad:
                again = f"edgellm rm {model.name}" if model.source == IMPORTED else f"edgellm pull --force {model.name}"
                note(f"try: {again}")
    if bad:
        raise typer.Exit(EXIT_CORRUPT)
