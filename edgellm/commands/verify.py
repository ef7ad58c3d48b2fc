"""`edgellm verify [MODEL...]`: hash the files of installed models and adapters again."""

from __future__ import annotations

from typing import Annotated

import typer

from edgellm.adapters import shelf, stored
from edgellm.exit_codes import ExitCode
from edgellm.models.local.registration import SOURCE as IMPORTED
from edgellm.models.local.store import InstalledModel
from edgellm.models.local.verification import Checked
from edgellm.models.local.verification import verify as verify_models
from edgellm.ui.console import note, print_line
from edgellm.ui.model_names import installed_names
from edgellm.ui.options import QuietOutput
from edgellm.ui.progress import progress
from edgellm.ui.render import render
from edgellm.workspace import workspace


def verify(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Installed models or adapters. [default: all]", autocompletion=installed_names),
    ] = None,
    *,
    output: QuietOutput,
) -> list[Checked]:
    """Check, without the network, that the files of installed models and adapters have not changed.

    Exit code 6 when one is not.

    \b
    Examples: edgellm verify
              edgellm verify smollm2 --json
    """
    here = workspace()
    found = [*here.store.all(), *shelf(here).all()]
    if models:
        found = [stored(here, name)[1] for name in dict.fromkeys(models)]
    with progress(quiet=output.silent) as report:
        checked = list(verify_models(found, report=report))
    render(output, checked, lambda checked: _print(checked, found))
    if not all(each.ok for each in checked):
        raise typer.Exit(ExitCode.CORRUPT)
    return checked


def _print(checked: list[Checked], found: list[InstalledModel]) -> None:
    for each in checked:
        print_line(f"{'ok     ' if each.ok else 'CORRUPT'}  {each.name}  {each.path}  {each.problem}".rstrip())
    if not found:
        note("no model is installed")
    bad = {each.name for each in checked if not each.ok}
    for model in found:
        if model.name in bad:
            note(f"try: {_mend(model)}")


def _mend(model: InstalledModel) -> str:
    if model.source == IMPORTED:
        return f"edgellm rm {model.name}"
    return f"edgellm pull --force {f'{model.base} --lora ' if model.base else ''}{model.name}"
