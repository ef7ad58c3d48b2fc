"""`edgellm doctor`: what this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

import typer

from edgellm.commands.chat import DEFAULT_MODEL
from edgellm.commands.workspace import workspace
from edgellm.ui import options


def doctor(as_json: options.Json = False) -> None:
    """Check this machine; really generate a few tokens.

    CPU, memory, disk, compiler, engine and patches; each failure with the command that mends it.

    Example: edgellm doctor
    """
    from rich.text import Text

    from edgellm.diagnosis import diagnose
    from edgellm.models.recipe import find_recipe
    from edgellm.ui.console import print_json, printable, stdout

    here = workspace()
    recipe = find_recipe(DEFAULT_MODEL, here.recipe_directories)
    checks = []
    for check in diagnose(here.settings, here.stack, here.store, recipe):
        checks.append(check)
        if not as_json:
            mark = ("ok  ", "green") if check.ok else ("FAIL", "bold red")
            line = Text.assemble(mark, f"  {check.name:<9} ", printable(check.detail))
            if check.fix:
                line.append("\n      try: ").append(check.fix, style="bold")
            stdout().print(line)
    if as_json:
        print_json({"ok": all(check.ok for check in checks), "checks": checks})
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
