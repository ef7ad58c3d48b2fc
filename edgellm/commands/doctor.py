"""`edgellm doctor`: what this machine has, what is missing, and the command that fixes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from edgellm.diagnosis import PATCH, Check, diagnose
from edgellm.exit_codes import ExitCode
from edgellm.models.recipe import find_recipe
from edgellm.settings import DEFAULT_MODEL
from edgellm.ui.console import print_check
from edgellm.ui.options import JsonOutput
from edgellm.ui.render import render
from edgellm.workspace import workspace


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Every check; `ok` when none failed that is needed."""

    ok: bool
    checks: list[Check]


def _show(check: Check, checks: Sequence[Check], n_patches: int, *, everything: bool) -> None:
    """Print a finding; the patches, which are many and never fail, are one line unless all are wanted."""
    if check.name != PATCH or everything:
        print_check(check.name, check.detail, ok=check.ok, fix=check.fix, needed=check.needed)
    elif sum(each.name == PATCH for each in checks) == 1:
        print_check("patches", f"{n_patches} carried by the engine; edgellm doctor --all lists them", ok=True, fix="")


def doctor(
    everything: Annotated[bool, typer.Option("--all", help="Also list every patch of the engine.")] = False,
    *,
    output: JsonOutput,
) -> Diagnosis:
    """Check this machine, and really generate a few tokens.

    Checks CPU, memory, disk, network, compiler, engine and patches, and shows the command that fixes each failure.

    \b
    Examples: edgellm doctor
              edgellm doctor --all
    """
    here = workspace()
    recipe = find_recipe(DEFAULT_MODEL, here.recipe_directories)
    checks: list[Check] = []
    for check in diagnose(here.settings, here.stack, here.store, recipe, lambda: here.hub):
        checks.append(check)
        if not output.as_json:  # as it comes: some take a while
            _show(check, checks, len(here.stack.patches), everything=everything)
    found = render(output, Diagnosis(all(check.ok or not check.needed for check in checks), checks), lambda _: None)
    if not found.ok:
        raise typer.Exit(ExitCode.FAILED)
    return found
