"""`edgellm prune`: delete what unfinished work left behind, and files that no model uses."""

from __future__ import annotations

from typing import Annotated

import typer

from edgellm.commands.workspace import workspace
from edgellm.ui import options


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be deleted.")] = False,
    as_json: options.Json = False,
) -> None:
    """Delete unfinished downloads, files set aside, and files in edgellm's store that no model uses.

    What another process is working on stays. Finished files of other tools in the Hugging Face cache are never touched.

    \b
    Examples: edgellm prune --dry-run
              edgellm prune
    """
    from edgellm.models import removing
    from edgellm.ui.console import note, print_json, print_table
    from edgellm.ui.units import size

    here = workspace()
    found = removing.leftovers(here.store, here.settings.downloads, here.hub_cache)
    deleted = [] if dry_run else removing.prune(found, here.store)
    shown = found if dry_run else deleted
    total = sum(leftover.size for leftover in shown)
    if as_json:
        files = [{"path": each.path, "size": each.size, "why": each.why} for each in shown]
        print_json({"dry_run": dry_run, "freed": 0 if dry_run else total, "files": files})
        return
    if shown:
        print_table(("FILE", "SIZE", "WHY"), [(str(e.path), size(e.size), e.why) for e in shown], right=(1,))
    if dry_run:
        note(f"{size(total)} would be freed; next: edgellm prune" if shown else "there is nothing to delete")
    else:
        busy = f"; {len(found) - len(deleted)} in use stay" if len(found) > len(deleted) else ""
        note(f"{size(total)} freed{busy}")
