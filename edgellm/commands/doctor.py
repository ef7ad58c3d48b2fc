"""`edgellm doctor`: what this machine has, what is missing, and the command that fixes it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgellm.bug_report import bug_report
from edgellm.diagnosis import PATCH, Check, diagnose
from edgellm.errors import UsageError
from edgellm.exit_codes import ExitCode
from edgellm.files import write_atomically
from edgellm.models.recipe import find_recipe, load_recipes
from edgellm.settings import DEFAULT_MODEL, resource_directory
from edgellm.ui.console import note, print_check
from edgellm.ui.options import JsonOutput
from edgellm.ui.render import render
from edgellm.workspace import Workspace, workspace


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
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Also write what a bug report needs, without names and keys."),
    ] = None,
    *,
    output: JsonOutput,
) -> Diagnosis:
    """Check this machine, and really generate a few tokens.

    Checks CPU, memory, disk, network, compiler, engine and patches, and shows the command that fixes each failure.

    \b
    Examples: edgellm doctor
              edgellm doctor --all
              edgellm doctor --report report.md
    """
    here = workspace()
    recipe = find_recipe(DEFAULT_MODEL, here.recipe_directories)
    checks: list[Check] = []
    for check in diagnose(here.settings, here.stack, here.store, recipe, lambda: here.hub):
        checks.append(check)
        if not output.as_json:  # as it comes: some take a while
            _show(check, checks, len(here.stack.patches), everything=everything)
    found = render(output, Diagnosis(all(check.ok or not check.needed for check in checks), checks), lambda _: None)
    if report is not None:
        _write_report(here, checks, report)
    if not found.ok:
        raise typer.Exit(ExitCode.FAILED)
    return found


def _write_report(here: Workspace, checks: Sequence[Check], path: Path) -> None:
    recipes = list(load_recipes([resource_directory("recipes")]))
    text = bug_report(checks, [model.name for model in here.store.all()], recipes, os.environ)
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        why, hint = error.strerror or str(error), "edgellm doctor --report report.md"
        raise UsageError(f"{path} cannot be written", why=why, hint=hint) from error
    note(f"{path} is written; names, addresses and keys are taken out, but read it before you share it")
