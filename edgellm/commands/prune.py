"""`edgellm prune`: delete what unfinished work left behind, and files that no model uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edgellm.adapters import shelf
from edgellm.models.local import removal
from edgellm.ui.console import note, print_table
from edgellm.ui.options import JsonOutput
from edgellm.ui.render import render
from edgellm.units import size
from edgellm.workspace import workspace


@dataclass(frozen=True, slots=True)
class PrunedFile:
    """A file that nothing needs; `size` is bytes."""

    path: Path
    size: int
    why: str


@dataclass(frozen=True, slots=True)
class Pruned:
    """The files that were deleted, or would be with --dry-run; `freed` is bytes, 0 with --dry-run.

    `packed` is the bytes of the packed weights that stay, `prompts` of the prompts that are kept.
    """

    dry_run: bool
    freed: int
    packed: int
    prompts: int
    files: list[PrunedFile]


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be deleted.")] = False,
    packed: Annotated[
        bool, typer.Option("--packed", help="Also delete packed weights, which make large models load at once.")
    ] = False,
    prompts: Annotated[
        bool, typer.Option("--prompts", help="Also delete the prompts that are kept so that they are not read again.")
    ] = False,
    *,
    output: JsonOutput,
) -> Pruned:
    """Delete unfinished downloads and evaluations, files set aside, and files of ours that no model uses.

    Packed weights and prompts of models that are gone or have changed, or of another engine, are among them. What
    another process is working on stays.
    Finished files of other tools in the Hugging Face cache are never touched.

    \b
    Examples: edgellm prune --dry-run
              edgellm prune
              edgellm prune --packed
              edgellm prune --prompts
    """
    here = workspace()
    found = removal.leftovers(here.store, here.settings, here.hub_cache, here.packed, engine=here.engine_name)
    kept, read = removal.kept_packed(here.packed), removal.kept_prompts(here.all_prompts, here.engine_name)
    if packed:
        found, kept = found + kept, []
    if prompts:
        found, read = found + read, []
    gone = found if dry_run else removal.prune(found, here.store, shelf(here))
    freed = 0 if dry_run else sum(leftover.size for leftover in gone)
    left, left_prompts = (sum(leftover.size for leftover in each) for each in (kept, read))
    result = Pruned(dry_run, freed, left, left_prompts, [PrunedFile(each.path, each.size, each.why) for each in gone])
    return render(output, result, lambda result: _print(result, n_busy=len(found) - len(gone)))


def _print(result: Pruned, *, n_busy: int) -> None:
    total = size(sum(file.size for file in result.files))
    if result.files:
        print_table(("FILE", "SIZE", "WHY"), [(str(f.path), size(f.size), f.why) for f in result.files], right=(1,))
    if result.dry_run:
        note(f"{total} would be freed; next: edgellm prune" if result.files else "there is nothing to delete")
    else:
        note(f"{total} freed" + (f"; {n_busy} in use stay" if n_busy > 0 else ""))
    if result.packed:
        note(f"{size(result.packed)} of packed weights stay; edgellm prune --packed deletes them too")
    if result.prompts:
        note(f"{size(result.prompts)} of prompts stay; edgellm prune --prompts deletes them too")
