"""A model or a checkpoint by the name that was typed, fetched with a bar if it is not here.

find_model(here, "smollm2", quiet=False).path
find_checkpoint(here, "deepgrove/Bonsai", report)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgellm.models import recipe
from edgellm.models.pull import fetch_checkpoint, make_plan
from edgellm.models.resolve import parse_reference
from edgellm.progress import Report
from edgellm.ui.progress import progress
from edgellm.workspace import LocalModel, Workspace


def find_model(here: Workspace, name: str, *, quiet: bool) -> LocalModel:
    """The file of a model, and its recipe if it has one; see `Workspace.model` for the errors."""
    with progress(quiet=quiet) as report:
        return here.model(name, report=report)


def find_checkpoint(here: Workspace, source: str, report: Report) -> Path:
    """The directory of that path, or the checkpoint of a repository on the Hub, fetched into its cache."""
    directory = Path(source)
    reference = None if directory.exists() or source.startswith((".", "/", "~")) else parse_reference(source)
    if reference is None:
        return directory
    plan = make_plan(replace(reference, convert=recipe.ConvertOptions()), here.hub, report=report)
    return fetch_checkpoint(plan, here.hub, report=report)
